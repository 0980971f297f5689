"""Simulation on GPUs: a thread of this process for each, batches that fit, and how long they wait."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

BYTES_AN_UNKNOWN = 160  # of device memory that a problem takes, estimate, scores and what lies between
SECONDS_A_LOOK = 2e-3


@contextmanager
def gpu_threads(workers: int | None) -> Iterator[Executor]:
    """A thread for each GPU, or `workers` of them in turn."""
    import torch

    gpus, numbers = torch.cuda.device_count(), count()

    def choose() -> None:
        torch.cuda.set_device(next(numbers) % gpus)

    with ThreadPoolExecutor(workers or gpus, initializer=choose) as executor:
        yield executor


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
