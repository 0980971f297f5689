"""What the command lines share: options, help as written, errors in one line."""

import argparse
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Literal, NoReturn

from jsonargparse import CLI, ArgumentParser, DefaultHelpFormatter

DataSetName = Literal[
    "synthetic",
    "folder",
    "sirst",
    "nudt_sirst",
    "irstd_1k",
    "sirst_aug",
    "drive",
    "stare",
    "chase_db1",
    "neu_seg",
    "sd_saliency_900",
    "sirst_v2",
]
ProtocolName = Literal["overlap", "centroid", "vessel", "defect"]
MethodName = Literal["pcp", "pssv", "wnnm", "ipi", "pstnn"]
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


class HelpAsWritten(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help whose description keeps its lines."""


def described_parser(program: str, description: str | None) -> ArgumentParser:
    """A parser whose help begins with `description`, line by line."""
    return ArgumentParser(prog=program, description=description, formatter_class=HelpAsWritten)


def run_command(
    program: str,
    description: str | None,
    commands: dict[str, Callable[..., None]],
    arguments: Sequence[str] | None = None,
) -> None:
    """Run the one of `commands` that the command line names, with its parameters as options."""
    with one_line_errors(program):
        CLI(commands, arguments, as_positional=False, description=description, formatter_class=HelpAsWritten)


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Ends the program with status 2 and one clear line where its input is at fault, or a file cannot be written.

    Ctrl-C ends it with status 130, SIGTERM with 143.
    """
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning|torchmetrics")
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except (OSError, ValueError, FloatingPointError) as error:
        print(f"{program}: error: {' '.join(without_traceback(str(error)).split())}", file=sys.stderr)
        sys.exit(2)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def without_traceback(message: str) -> str:
    """What an error said before a process that loads pictures handed it on with its traceback."""
    if "in DataLoader worker process" not in message:
        return message
    return message.strip().splitlines()[-1].split(": ", 1)[-1]


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
