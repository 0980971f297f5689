"""What the command lines share: errors in one line, and the right packages."""

import argparse
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from jsonargparse import ArgumentParser, DefaultHelpFormatter

PACKAGES = ("rpcanet", "datasets")


class HelpAsWritten(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help whose description keeps its lines."""


def described_parser(program: str, description: str | None) -> ArgumentParser:
    """A parser whose help begins with `description`, line by line."""
    return ArgumentParser(prog=program, description=description, formatter_class=HelpAsWritten)


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Ends the program with status 2 and one clear line where its input is at fault."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning|torchmetrics")
    try:
        check_packages()
        yield
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError) as error:
        print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def check_packages() -> None:
    """Raises ValueError where another project's package of the same name would be imported."""
    home = Path(__file__).resolve().parents[1]
    for name in PACKAGES:
        spec = find_spec(name)
        found = spec.origin if spec else None
        if found is None or not Path(found).resolve().is_relative_to(home):
            raise ValueError(
                f"expected this project's package {name!r} in {home}, found {found}; "
                "run in the project's own environment (make setup, then .venv/bin/python)"
            )
