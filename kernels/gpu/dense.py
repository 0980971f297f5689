"""The SVD and the Hermitian eigendecomposition of batches of small matrices, a block of CUDA C for each matrix.

Householder reflections to a bidiagonal or tridiagonal form, and implicit QR or QL on that: a fifth to a tenth of
the operations of Jacobi's method, at the cost of a chain of rotations that one matrix cannot spread over threads.
With a warp (n <= 32, or part of one) or a few a matrix, thousands of chains run side by side. See eigh.cu and
svd.cu, and `small_svd` for the SVD of what a warp holds.
"""

import threading
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from . import small_svd
from .compile import Kernel, kernel, wait

FOLDER = Path(__file__).parent
WARP = 32
MOST_WARPS = 17
NOT_FINITE = 1

# (order up to, matrices up to): of so few, the library's loop over them takes less time, since a block follows the
# chain of rotations of its matrix at one pace however many blocks there are. H100, torch 2.11 with CUDA 13.0, 26
# November 2026, ms of 8 matrices by this module / of one by the library. eigh, float32: n = 64 0.56 / 0.84, 128
# 1.7 / 1.8, 256 13 / 4.7, 512 72 / 13; float64: 64 0.94 / 0.78, 128 3.3 / 1.7, 256 24 / 2.3, 512 97 / 5.0. svd,
# float32: 64 0.74 / 1.1, 128 2.4 / 2.8, 256 16 / 6.9, 512 140 / 19; in double precision taken as twice that.
LIBRARY = {
    ("eigh", torch.float32): ((64, 0), (128, 1), (256, 3), (512, 6)),
    ("eigh", torch.float64): ((33, 0), (64, 1), (128, 2), (256, 10), (512, 20)),
    ("svd", torch.float32): ((128, 0), (256, 2), (512, 7)),
    ("svd", torch.float64): ((64, 0), (128, 2), (256, 5), (512, 15)),
}


class Plan(NamedTuple):
    """How matrices of a shape are decomposed: the kernel, matrices and warps a block, and bytes a matrix."""

    run: Kernel
    together: int
    warps: int
    room: int
    on_chip: bool


def serves(name: str, matrix: Tensor) -> bool:
    """Whether the matrices are many and small enough for `eigh` or `svd`, and can be compiled for."""
    order, rows, count = min(matrix.shape[-2:]), max(matrix.shape[-2:]), matrix.shape[:-2].numel()
    if count == 0 or order == 0:
        return False
    table = LIBRARY[name, matrix.dtype.to_real()]
    few = next((few for largest, few in table if order <= largest), count)
    if count <= few:
        return False
    if name == "svd" and rows <= WARP:
        return small_svd.compiled(matrix.dtype, matrix.device, rows) is not None
    return _plan(name, matrix.dtype, matrix.device, rows, order, True) is not None


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., n), ascending, and eigenvectors of (..., n, n), from the lower triangle.

    Raises torch.linalg.LinAlgError where it holds NaN or infinity.
    """
    flat = _flat(matrix)
    n, count = matrix.shape[-1], matrix.shape[:-2].numel()
    plan = _planned("eigh", flat, n, n)
    Q, values = torch.empty_like(flat), flat.new_empty(matrix.shape[:-1], dtype=matrix.dtype.to_real())
    workspace = flat if plan.on_chip else flat.new_empty(count * n * _leading(n))
    _launch(plan, count, flat, Q, values, workspace, n, _leading(n))
    return values, Q


def svd(matrix: Tensor, vectors: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, descending, and Vh of (..., m, n), thin; U and Vh are left unset unless `vectors`.

    Raises torch.linalg.LinAlgError where it holds NaN or infinity.
    """
    batch, (rows, columns) = matrix.shape[:-2], matrix.shape[-2:]
    m, n = max(rows, columns), min(rows, columns)
    flat, count = _flat(matrix), batch.numel()
    plan = _planned("svd", flat, m, n, vectors) if m > WARP else None
    if plan and m > 2 * n and not plan.on_chip:
        return _svd_of_long(flat, vectors)
    U, Vh = flat.new_empty(*batch, rows, n), flat.new_empty(*batch, n, columns)
    S = flat.new_empty(*batch, n, dtype=matrix.dtype.to_real())
    if plan:
        workspace = flat if plan.on_chip else flat.new_empty(count * n * (_leading(m) + _leading(n)))
        sizes = m, n, _leading(m), _leading(n), int(rows < columns), int(vectors)
        _launch(plan, count, flat, U, S, Vh, workspace, *sizes)
    else:
        status = _status(threading.get_ident())
        small_svd.decompose(flat, U, S, Vh, vectors, status)
        _require_settled(status)
    return U, S, Vh


def _svd_of_long(matrix: Tensor, vectors: bool) -> tuple[Tensor, Tensor, Tensor]:
    """By QR of the longer side first."""
    if matrix.shape[-2] < matrix.shape[-1]:
        V, S, Uh = _svd_of_long(matrix.mH, vectors)
        return Uh.mH.contiguous(), S, V.mH.contiguous()
    Q, R = torch.linalg.qr(matrix)
    U, S, Vh = svd(R, vectors)
    return Q @ U, S, Vh


def _flat(matrix: Tensor) -> Tensor:
    return matrix.resolve_conj().resolve_neg().contiguous()


def _leading(rows: int) -> int:
    """Numbers from one column to the next: odd, so that a row's lie in different banks."""
    return rows | 1


def _planned(name: str, flat: Tensor, m: int, n: int, vectors: bool = True) -> Plan:
    plan = _plan(name, flat.dtype, flat.device, m, n, vectors)
    if plan is None:
        raise RuntimeError(f"{name}.cu cannot be compiled for {flat.device}")
    return plan


@lru_cache(None)
def _plan(name: str, dtype: torch.dtype, device: torch.device, m: int, n: int, vectors: bool) -> Plan | None:
    """For matrices (m, n), m >= n, on chip where they fit; None where there is no compiler."""
    warps, lanes = layout(m if name == "eigh" else m + n)
    held, scratch = memory(name, dtype, m, n, warps, vectors)
    on_chip = held + scratch <= torch.cuda.get_device_properties(device).shared_memory_per_block_optin  # type: ignore[attr-defined]
    run = kernel(
        FOLDER / f"{name}.cu",
        f"{name}_kernel",
        device,
        **definitions(name, dtype, warps, lanes, on_chip, n),
    )
    if run is None:
        return None
    sharing = group(dtype, warps, lanes)
    room = scratch + (held if on_chip else 0)
    return Plan(run, max(1, sharing * WARP // lanes), max(warps, sharing), room, on_chip)


def layout(rows: int) -> tuple[int, int]:
    """Warps for a matrix and lanes of each that work on it, for so many rows to turn.

    One warp, or part of it, for up to 32; else about one for 32 rows, and one that follows the form.
    """
    if rows <= WARP:
        return 1, max(8, 1 << (rows - 1).bit_length())
    return min(MOST_WARPS, 1 + (1 << ((rows - 1) // WARP).bit_length())), WARP


def group(dtype: torch.dtype, warps: int, lanes: int) -> int:
    """Warps of a block whose chains of rotations one warp follows; 0 where all warps work on one matrix.

    H100, microseconds of the kernel for 1, 2, 4 and 8 of them, eigh of 4,096 in float32 and in complex128: n = 8
    33, 35, 35, 38 and 54, 54, 53, 56; n = 16 93, 96, 85, 86 and 183, 183, 156, 165; n = 32 453, 483, 321, 301 and
    1283, 1594, 1546, 1486.
    """
    if warps > 1:
        return 0
    if lanes == WARP:
        return 8 if dtype.to_real() == torch.float32 else 1
    return 4 if lanes == WARP // 2 else 1


def memory(name: str, dtype: torch.dtype, m: int, n: int, warps: int, vectors: bool) -> tuple[int, int]:
    """Bytes of the matrices, and of what else a block keeps on chip; see eigh.cu and svd.cu."""
    number, real = dtype.itemsize, dtype.to_real().itemsize
    if name == "eigh":
        ahead = 1 if warps == 1 else 2  # rotations of as many steps
        parts = [n * number] * 3 + [2 * ahead * n * real, n * real, n * real, 2 * warps * real, 4 * n, 16]
        return _rounded(n * _leading(n) * number), sum(map(_rounded, parts))
    held = _rounded(n * _leading(m) * number) + (_rounded(n * _leading(n) * number) if vectors else 0)
    parts = [m * number, n * number, n * number, 8 * n * real, n * real, (n + 1) * real, 2 * warps * real]
    return held, sum(map(_rounded, [*parts, 4 * n, 16]))


def _rounded(size: int) -> int:
    return -(-size // 16) * 16


def definitions(
    name: str, dtype: torch.dtype, warps: int, lanes: int, on_chip: bool, n: int = 0
) -> dict[str, str | int]:
    """Of the preprocessor, for eigh.cu and svd.cu: few, so that little is compiled.

    The order n is one where the matrix fills the lanes of a warp that work on it.
    """
    order = {"ORDER": n} if name == "eigh" and warps == 1 and n == lanes else {}
    return order | {
        "REAL": "double" if dtype.to_real() == torch.float64 else "float",
        "COMPLEX": int(dtype.is_complex),
        "GROUP": group(dtype, warps, lanes),
        "LANES": lanes,
        "ON_CHIP": int(on_chip),
    }


def _launch(plan: Plan, count: int, *arguments: Tensor | int) -> None:
    """Run the kernel and wait for it. Where it fails it says why in memory of the host."""
    arrays = [x for x in arguments if isinstance(x, Tensor)]
    sizes = [x for x in arguments if not isinstance(x, Tensor)]
    status = _status(threading.get_ident())
    blocks = -(-count // plan.together)
    plan.run(blocks, WARP * plan.warps, plan.together * plan.room, *arrays, status, count, plan.room, *sizes)
    wait(arrays[0].device)
    _require_settled(status)


def _require_settled(status: Tensor) -> None:
    found = int(status)
    if found:
        status.zero_()
        what = (
            "holds NaN or infinity" if found == NOT_FINITE else "has a decomposition that does not converge"
        )
        raise torch.linalg.LinAlgError(f"matrix {what}")


@lru_cache(None)
def _status(thread: int) -> Tensor:
    """A number in page-locked memory, which kernels write and the host reads; 0 between calls."""
    return torch.zeros(1, dtype=torch.int32, pin_memory=True)
