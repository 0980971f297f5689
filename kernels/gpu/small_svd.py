"""The SVD of batches of matrices with sides of at most 32, whose rows and columns lanes hold in registers.

Three kernels, whose work has three shapes: lanes that share a matrix, a thread that follows the chain of rotations
of one, and a lane for each row of U and V. The chain, which lanes cannot share, is so followed for thousands of
matrices at once; its rotations go through device memory. See small_svd.cu.
"""

from ctypes import c_void_p
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .compile import Kernel, kernel

SOURCE = Path(__file__).with_name("small_svd.cu")
WARP = 32
WARPS = 4  # of a block
CHAINS = 32  # that a block of `diagonalise` follows
NOT_SETTLED = 2
ROUNDS = 60
WORKSPACE = 512 * 2**20  # bytes at most: larger batches go in parts
NOTHING = c_void_p(0)


class Kernels(NamedTuple):
    """The functions of small_svd.cu."""

    bidiagonalise: Kernel
    diagonalise: Kernel
    turn: Kernel


class Workspace(NamedTuple):
    """What they hand on, a row for each matrix, but for `form`; see small_svd.cu."""

    Q: Tensor
    taus: Tensor
    turns: Tensor
    steps: Tensor
    settled: Tensor
    order: Tensor
    form: Tensor


def padded(rows: int) -> int:
    """Rows that matrices of so many take in registers: 8, 16 or 32."""
    return max(8, 1 << (rows - 1).bit_length())


def lanes(dtype: torch.dtype, rows: int) -> int:
    """That work on a matrix: each has two of its rows in single precision, one of others."""
    return padded(rows) // (2 if dtype == torch.float32 else 1)


def rotations(n: int) -> int:
    """That a round has room for: random matrices need 0.8 n^2 in single precision and n^2 in double, few more."""
    return n * (n + 12)


def definitions(dtype: torch.dtype, rows: int) -> dict[str, str | int]:
    """Of the preprocessor, for small_svd.cu."""
    return {
        "REAL": "double" if dtype.to_real() == torch.float64 else "float",
        "COMPLEX": int(dtype.is_complex),
        "GROUP": WARPS,
        "LANES": lanes(dtype, rows),
    }


def chain_room(dtype: torch.dtype, N: int) -> int:
    """Bytes on chip of a block of `diagonalise`: forms, a step's rotations, and where they go."""
    return ((2 * N + 1) * CHAINS + N * (CHAINS + 1) * 2) * dtype.itemsize + 8 * CHAINS


@lru_cache(None)
def compiled(dtype: torch.dtype, device: torch.device, rows: int) -> Kernels | None:
    """For matrices of so many rows, or columns where they are more; None where there is no compiler."""
    macros = definitions(dtype, rows)
    found = [kernel(SOURCE, name, device, **macros) for name in Kernels._fields]
    return None if None in found else Kernels(*found)  # type: ignore[arg-type]


def workspace(matrices: Tensor, vectors: bool) -> Workspace:
    """For matrices (batch, rows, columns)."""
    batch, rows, columns = matrices.shape
    n, N, real = min(rows, columns), padded(max(rows, columns)), matrices.dtype.to_real()
    kept = batch if vectors else 0
    return Workspace(
        Q=matrices.new_empty(kept, 2, N, N),
        taus=matrices.new_empty(kept, 2, N),
        turns=matrices.new_empty(kept, rotations(n), 2, dtype=real),
        steps=matrices.new_empty(kept, rotations(n) + 1, 2, dtype=torch.uint8),
        settled=matrices.new_empty(kept, dtype=torch.int32),
        order=matrices.new_empty(kept, n, dtype=torch.int32),
        form=matrices.new_empty(2 * N + 1, batch, dtype=real),
    )


@lru_cache(None)
def together(dtype: torch.dtype, rows: int, columns: int) -> int:
    """Matrices whose workspace is within its bound."""
    one = workspace(torch.empty(1, rows, columns, dtype=dtype, device="meta"), True)
    return WORKSPACE // sum(x.nbytes for x in one)


def decompose(matrices: Tensor, U: Tensor, S: Tensor, Vh: Tensor, vectors: bool, status: Tensor) -> None:
    """Fill U (batch, rows, n), S (batch, n) and Vh (batch, n, columns) for matrices (batch, rows, columns).

    Returns when it is done, or at the first fault, which `status`, in page-locked memory, then holds.
    """
    run = compiled(matrices.dtype, matrices.device, max(matrices.shape[1:]))
    if run is None:
        raise RuntimeError(f"{SOURCE.name} cannot be compiled for {matrices.device}")
    count = together(matrices.dtype, *matrices.shape[1:])
    for first in range(0, len(matrices), count):
        some = slice(first, first + count)
        _decompose(run, matrices[some], U[some], S[some], Vh[some], vectors, status)
        if int(status):
            return


def _decompose(
    run: Kernels, matrices: Tensor, U: Tensor, S: Tensor, Vh: Tensor, vectors: bool, status: Tensor
) -> None:
    batch, rows, columns = matrices.shape
    m, n, wide = max(rows, columns), min(rows, columns), int(rows < columns)
    space, most, N = workspace(matrices, vectors), rotations(n), padded(m)
    Q, taus, turns, steps, settled, order = space[:-1] if vectors else [NOTHING] * 6
    together = WARPS * WARP // lanes(matrices.dtype, m)
    shape = WARPS * WARP, together * N * (N + 1) * matrices.itemsize
    run.bidiagonalise(-(-batch // together), *shape, matrices, Q, taus, space.form, status, batch, m, n, wide)
    for round in range(ROUNDS):
        chain = space.form, turns, steps, settled, S, order, status, batch, n, most, round
        run.diagonalise(-(-batch // CHAINS), CHAINS, chain_room(S.dtype, N), *chain)
        if vectors:
            rest = Q, taus, turns, steps, settled, order, U, Vh, batch, m, n, wide, most, round
            run.turn(-(-2 * batch // together), *shape, *rest)
        torch.cuda.current_stream(matrices.device).synchronize()
        if int(status) != NOT_SETTLED or round == ROUNDS - 1:
            return
        status.zero_()
