"""Measure this toolkit against what one would otherwise call. Every number is a ratio within one run."""

import argparse
from collections.abc import Sequence

from unfoldkit.common.console import called, one_line_errors
from unfoldkit.tools.benchmarks.options import SUBJECTS


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run the subcommand."""
    parser = argparse.ArgumentParser(
        prog=called("benchmark.py"),
        description=__doc__,
        epilog="example: python tools/benchmark.py kernels --only svd conv --json kernels.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add_subject in SUBJECTS:
        add_subject(commands)
    options = parser.parse_args(arguments)
    with one_line_errors("benchmark.py"):
        return int(options.run(options))


if __name__ == "__main__":
    raise SystemExit(main())
