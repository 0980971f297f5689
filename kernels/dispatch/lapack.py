"""LAPACK over a batch on the CPU, the batch split over PyTorch's threads.

PyTorch loops over a batch of small matrices on one core. The calls release the interpreter's lock, so
threads that each take a slice of the batch keep every core busy.
"""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

LARGEST_SPLIT = 128
SMALLEST_SLICE = 16


def over_batch(routine: Callable[[Tensor], tuple[Tensor, ...]], matrix: Tensor) -> tuple[Tensor, ...]:
    """Results of a batched `routine`, which nothing records, for matrices (..., m, n)."""
    *batch, rows, columns = matrix.shape
    slices = math.prod(batch) // SMALLEST_SLICE
    if slices > 1:
        slices = min(slices, torch.get_num_threads())
    if slices < 2 or matrix.is_cuda or min(rows, columns) > LARGEST_SPLIT:
        return routine(matrix)
    flat = matrix.detach().reshape(-1, rows, columns)
    return tuple(part.reshape(*batch, *part.shape[1:]) for part in _split(routine, flat, slices))


def _split(routine: Callable[[Tensor], tuple[Tensor, ...]], flat: Tensor, slices: int) -> tuple[Tensor, ...]:
    with (
        _one_thread_each(),
        ThreadPoolExecutor(slices, initializer=torch.set_num_threads, initargs=(1,)) as pool,
    ):
        parts = list(pool.map(routine, flat.tensor_split(slices)))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep LAPACK itself to one thread a slice: slices that each start a team of threads wait on one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
