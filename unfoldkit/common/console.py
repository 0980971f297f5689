"""What the command lines share: options, help as written, errors in one line."""

import argparse
import logging
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

from jsonargparse import CLI, ArgumentParser, DefaultHelpFormatter

Item = TypeVar("Item")
COMMAND = "unfoldkit "
# File of tools/ -> command of an installed unfoldkit.
COMMANDS = {
    "demo": "demo",
    "zoo": "zoo",
    "prepare_data": "prepare-data",
    "train": "train",
    "evaluate": "evaluate",
    "predict": "predict",
    "interpret": "interpret",
    "compress": "compress",
    "export": "export",
    "simulate": "simulate",
    "trace_estimate": "trace",
    "train_estimator": "train-estimator",
    "benchmark": "benchmark",
    "training_curves": "training-curves",
    "compare_backgrounds": "compare-backgrounds",
}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


class HelpAsWritten(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help whose description keeps its lines."""


def described_parser(program: str, description: str | None) -> ArgumentParser:
    """A parser whose help begins with `description`, line by line."""
    return ArgumentParser(
        prog=called(program), description=as_called(description), formatter_class=HelpAsWritten
    )


def called(program: str) -> str:
    """What the user typed for a file of tools/: its name, or "unfoldkit" and the command's."""
    return sys.argv[0] if sys.argv[0].startswith(COMMAND) else program


def as_called(description: str | None) -> str:
    """A description whose examples are typed as this command was."""
    examples = description or ""
    if not sys.argv[0].startswith(COMMAND):
        return examples
    return re.sub(r"python tools/(\w+)\.py", lambda tool: COMMAND + COMMANDS[tool[1]], examples)


def run_command(
    program: str,
    description: str | None,
    commands: dict[str, Callable[..., None]],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run the one of `commands` that the command line names, with its parameters as options."""
    with one_line_errors(program):
        CLI(
            commands,
            arguments,
            as_positional=False,
            prog=called(program),
            description=as_called(description),
            formatter_class=HelpAsWritten,
        )


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Ends the program with status 2 and one clear line where its input is at fault, or a file cannot be written.

    Ctrl-C ends it with status 130, SIGTERM with 143.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning|torchmetrics")
    warnings.formatwarning = lambda message, *_: f"{called(program)}: warning: {message}\n"
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    except KeyboardInterrupt:
        print(f"{called(program)}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (OSError, ValueError, FloatingPointError) as error:
        print(f"{called(program)}: error: {' '.join(without_traceback(str(error)).split())}", file=sys.stderr)
        sys.exit(2)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def naming(shown: object) -> Iterator[None]:
    """Have a ValueError say that it is about `shown`, unless it does.

    >>> with naming("a.png"):
    ...     raise ValueError("too narrow")
    Traceback (most recent call last):
    ValueError: a.png: too narrow
    """
    try:
        yield
    except ValueError as error:
        if str(shown) in str(error):
            raise
        raise ValueError(f"{shown}: {error}") from error


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def without_traceback(message: str) -> str:
    """What an error said before a process that loads pictures handed it on with its traceback."""
    if "in DataLoader worker process" not in message:
        return message
    return message.strip().splitlines()[-1].split(": ", 1)[-1]


def progress(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """The items, under a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import track

    yield from track(items, description, total, console=Console(stderr=True))


def report_skipped(skipped: Sequence[str]) -> None:
    """Say how many pictures --skip-bad left out, and what was wrong with each."""
    if skipped:
        print("\n".join([f"Left out {len(skipped)} bad pictures:", *(f"  {fault}" for fault in skipped)]))


def keep_memory() -> None:
    """Let glibc keep the memory that tensors give back.

    Else each tensor of more than 32 MiB, such as the features of 512 x 512 pixels, is asked of the system anew,
    which clears it page by page: that takes longer than many a step on it.
    """
    import ctypes

    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def require_device(device: str) -> None:
    """ValueError unless tensors can be put there: on cpu, cuda, cuda:1, ..."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter of a PyTorch built without CUDA
        reason = next(iter(str(error).splitlines()), "")
        raise ValueError(f"--device {device!r} cannot be used here: {reason}") from None
