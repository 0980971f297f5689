"""Simulation on GPUs: a thread of this process for each, batches that fit, and how long they wait.

PyTorch is imported where it is used: what does not need it goes on while another thread imports it.
"""

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count

from unfoldkit.common.nvrtc import architecture, cubin, nvrtc, start_gpu

from ..em.block.sources import FULL_MOMENT, SOURCES, definitions
from ..em.call import Kind

BYTES_AN_UNKNOWN = 160  # of device memory that a problem takes, estimate, scores and what lies between
SECONDS_A_LOOK = 2e-3
SECONDS_A_TURN = 5e-5  # of a thread that holds the interpreter while others want it
# The M-steps of the estimators of the experiments, and in their published form.
M_STEPS = {
    "SVD": (Kind.ROOT_SVD, Kind.NESTED_SVD),
    "AM": (Kind.BOUND, Kind.ALTERNATING),
    "KSBL": (Kind.BOUND, Kind.ONE_SWEEP),
    "PC0.8": (Kind.BOUND, Kind.ALTERNATING),
    "PC0.5": (Kind.BOUND, Kind.ALTERNATING),
}


def compile_ahead(names: Sequence[str], factors: int, complex_numbers: bool, as_published: bool) -> None:
    """Start the first GPU, and compile what these estimators will launch on it, in threads that nobody waits for.

    A fault is left to whoever needs the kernel.
    """
    steps = {M_STEPS[name][as_published] for name in names if name in M_STEPS}
    kernels = [("em_solve", step) for step in steps] + [("em_posterior", FULL_MOMENT)] * bool(steps)

    def build(kind: str, name: str, step: int) -> None:
        with suppress(OSError, RuntimeError):
            cubin(SOURCES[name], kind, **definitions(factors, complex_numbers, step))

    def start() -> None:
        with suppress(OSError, RuntimeError):
            kind, _ = architecture(0), nvrtc()
            for kernel in kernels:
                threading.Thread(target=build, args=(kind, *kernel), daemon=True).start()
            start_gpu(0)

    threading.Thread(target=start, daemon=True).start()


@contextmanager
def gpu_threads(workers: int | None) -> Iterator[Executor]:
    """A thread for each GPU, or `workers` of them in turn.

    It calls a GPU some hundred times for a batch and wants the interpreter back each time, for which it would
    wait 5 ms whenever another thread computes.
    """
    import torch

    gpus, numbers, before = torch.cuda.device_count(), count(), sys.getswitchinterval()

    def choose() -> None:
        torch.cuda.set_device(next(numbers) % gpus)

    sys.setswitchinterval(SECONDS_A_TURN)
    try:
        with ThreadPoolExecutor(workers or gpus, initializer=choose) as executor:
            yield executor
    finally:
        sys.setswitchinterval(before)


def trials_that_fit(unknowns: int) -> int:
    """How many problems of so many unknowns the free memory of the current GPU takes at once."""
    import torch

    free, _ = torch.cuda.mem_get_info()
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return max(1, (free + cached) // (BYTES_AN_UNKNOWN * unknowns))


@dataclass
class Waiting:
    """How often a GPU was looked at, how often it had nothing to do, and for how many seconds that went on."""

    looks: int = 0
    idle: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        share = self.idle / max(1, self.looks)
        return f"GPU idle for {share:.0%} of {self.seconds:.1f} s"


@contextmanager
def watched() -> Iterator[Waiting]:
    """Look at the stream of every GPU now and then, until the end of the context."""
    import torch

    waiting, done, start = Waiting(), threading.Event(), time.perf_counter()
    streams = [torch.cuda.default_stream(gpu) for gpu in range(torch.cuda.device_count())]

    def look() -> None:
        while not done.wait(SECONDS_A_LOOK):
            waiting.looks += len(streams)
            waiting.idle += sum(stream.query() for stream in streams)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield waiting
    finally:
        done.set()
        watcher.join()
        waiting.seconds = time.perf_counter() - start
