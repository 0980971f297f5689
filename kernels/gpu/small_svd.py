"""The SVD of batches of matrices with sides of at most 32, whose rows and columns lanes hold in registers.

Three kernels, whose work has three shapes: lanes that share a matrix, a thread that follows the chain of rotations
of one, and lanes that share U or V. The chain, which lanes cannot share, is so followed for thousands of matrices
at once; its rotations go through device memory. On an H100 10,000 matrices (32, 32) in float32 take less than half
the time of a warp that follows each from beginning to end, chain and all. See small_svd.cu.
"""

import ctypes
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .compile import Kernel, kernel, wait

SOURCE = Path(__file__).with_name("small_svd.cu")
WARPS = 4  # of a block
CHAINS = 32  # that a block follows
NOT_SETTLED = 2
ROUNDS = 60
WORKSPACE = ("Q", "taus", "turns", "form", "order", "settled", "steps")
MOST_BYTES = 512 * 2**20  # of a workspace; larger batches go in parts


class Kernels(NamedTuple):
    """The functions of small_svd.cu."""

    bidiagonalise: Kernel
    diagonalise: Kernel
    turn: Kernel


class Problem(ctypes.Structure):
    """What they are told; see small_svd.cu."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("matrices", "U", "S", "Vh", "failed", *WORKSPACE)),
        *((name, ctypes.c_int) for name in ("batch", "m", "n", "wide", "most", "round")),
    )


def padded(rows: int) -> int:
    """Rows that matrices of so many take in registers, 8, 16 or 32, which is how many lanes a matrix has."""
    return max(8, 1 << (rows - 1).bit_length())


def rotations(n: int) -> int:
    """That a round has room for, an even number: random matrices take 0.8 n^2, in double precision n^2."""
    return n * (n + 13)


def definitions(dtype: torch.dtype, rows: int) -> dict[str, str | int]:
    """Of the preprocessor, for small_svd.cu."""
    return {
        "REAL": "double" if dtype.to_real() == torch.float64 else "float",
        "COMPLEX": int(dtype.is_complex),
        "GROUP": WARPS,
        "LANES": padded(rows),
    }


@lru_cache(None)
def compiled(dtype: torch.dtype, device: torch.device, rows: int) -> Kernels | None:
    """For matrices of so many rows, or columns where they are more; None where there is no compiler."""
    macros = definitions(dtype, rows)
    kernels = (kernel(SOURCE, name, device, **macros) for name in Kernels._fields)
    found = [run for run in kernels if run is not None]
    return Kernels(*found) if len(found) == len(Kernels._fields) else None


def sizes(dtype: torch.dtype, m: int, n: int, vectors: bool) -> tuple[int, ...]:
    """Bytes that a matrix takes of each part of the workspace, which stand by falling alignment."""
    N, most, number, real = padded(m), rotations(n), dtype.itemsize, dtype.to_real().itemsize
    form = (2 * N + 1) * real
    kept = (2 * N * N * number, 2 * N * number, 2 * most * real, form, 4 * n, 4, 2 * (most + 1))
    return kept if vectors else (0, 0, 0, form, 0, 0, 0)


def decompose(matrices: Tensor, U: Tensor, S: Tensor, Vh: Tensor, vectors: bool, status: Tensor) -> None:
    """Fill U (..., rows, n), S (..., n), Vh (..., n, columns) for matrices (..., rows, columns), all contiguous.

    Returns when it is done, or at the first fault, which `status`, in page-locked memory, then holds.
    """
    rows, columns = matrices.shape[-2:]
    m, n, batch = max(rows, columns), min(rows, columns), S.numel() // S.shape[-1]
    run = compiled(matrices.dtype, matrices.device, m)
    if run is None:
        raise RuntimeError(f"{SOURCE.name} cannot be compiled for {matrices.device}")
    each = sizes(matrices.dtype, m, n, vectors)
    count = min(batch, MOST_BYTES // sum(each))
    space = matrices.new_empty(count * sum(each), dtype=torch.uint8)
    starts = [space.data_ptr() + count * before for before in accumulate(each, initial=0)]
    parts = [start if size else None for start, size in zip(starts, each, strict=False)]
    for first in range(0, batch, count):
        given = [x.data_ptr() + x.nbytes // batch * first for x in (matrices, U, S, Vh)]
        some = min(count, batch - first)
        problem = Problem(*given, status.data_ptr(), *parts, some, m, n, rows < columns, rotations(n), 0)
        _decompose(run, problem, padded(m), matrices, status)
        if int(status):
            return


def _decompose(run: Kernels, problem: Problem, N: int, matrices: Tensor, status: Tensor) -> None:
    block, number = 32 * WARPS, matrices.itemsize
    side = 2 if matrices.dtype == torch.float32 else 1  # rows of U or V that a lane turns
    tiles, turned = block // N, block * side // N
    room = N * (N + 1) * number
    run.bidiagonalise(-(-problem.batch // tiles), block, tiles * room, problem)
    for problem.round in range(ROUNDS):
        run.diagonalise(-(-problem.batch // CHAINS), CHAINS, 0, problem)
        if problem.turns:
            run.turn(-(-2 * problem.batch // turned), block, turned * room, problem)
        wait(matrices.device)
        if int(status) != NOT_SETTLED or problem.round == ROUNDS - 1:
            return
        status.zero_()
