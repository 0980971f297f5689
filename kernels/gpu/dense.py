"""The SVD and the Hermitian eigendecomposition of batches of small matrices, a block of CUDA C for each matrix.

Householder reflections to a bidiagonal or tridiagonal form, and implicit QR or QL on that: a fifth to a tenth of the
operations of Jacobi's method, at the cost of a chain of rotations that one matrix cannot spread over threads. With a
warp (n <= 32) or a few a matrix, thousands of chains run side by side. See eigh.cu and svd.cu.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from .compile import Kernel, kernel

FOLDER = Path(__file__).parent
WARP = 32
LARGEST = 512
MOST_WARPS = 17
NOT_FINITE = 1


def serves(matrix: Tensor) -> bool:
    """Whether the matrices are small enough, and can be held as they are."""
    return matrix.numel() > 0 and min(matrix.shape[-2:]) <= LARGEST


def eigh(matrix: Tensor, vectors: bool = True) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., n), ascending, and eigenvectors of (..., n, n), left unset unless `vectors`.

    Raises torch.linalg.LinAlgError.
    """
    n = matrix.shape[-1]
    flat = matrix.resolve_conj().resolve_neg().contiguous()
    batch = flat.numel() // (n * n)
    Q, values = torch.empty_like(flat), flat.new_empty(matrix.shape[:-1], dtype=matrix.dtype.to_real())
    ld, warps = n | 1, _warps(n)
    real, one = values.element_size(), flat.element_size()
    rest = 3 * n * one + 4 * n * real + (2 * n + 2 * warps) * real + 4 * n + 160
    chip = n * ld * one + rest <= _shared_memory(flat.device)
    run = _kernel("eigh", flat, warps, vectors, chip)
    workspace = None if chip else flat.new_empty(batch * n * ld)
    failed = torch.zeros(1, dtype=torch.int32, device=flat.device)
    shared = rest + (n * ld * one if chip else 0)
    run(batch, WARP * warps, shared, flat, Q, values, _place(workspace, flat), failed, n, ld)
    _check(failed)
    return values, Q


def svd(matrix: Tensor, vectors: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, descending, and Vh of (..., m, n), thin; U and Vh are left unset unless `vectors`.

    Raises torch.linalg.LinAlgError.
    """
    batch, (rows, columns) = matrix.shape[:-2], matrix.shape[-2:]
    m, n = max(rows, columns), min(rows, columns)
    flat = matrix.resolve_conj().resolve_neg().contiguous()
    S = flat.new_empty(*batch, n, dtype=matrix.dtype.to_real())
    U, Vh = flat.new_empty(*batch, rows, n), flat.new_empty(*batch, n, columns)
    ld, ldv, warps = m | 1, n | 1, 1 if m <= WARP else _warps(m + n)
    real, one = S.element_size(), flat.element_size()
    rest = (m + 2 * n) * one + (8 * n + 2 * n + 1 + 2 * warps) * real + 4 * n + 192
    held = n * (ld + ldv if vectors else ld) * one
    chip = held + rest <= _shared_memory(flat.device)
    run = _kernel("svd", flat, warps, vectors, chip)
    workspace = None if chip else flat.new_empty(S.numel() * (ld + ldv))
    failed = torch.zeros(1, dtype=torch.int32, device=flat.device)
    shared = rest + (held if chip else 0)
    arguments = (flat, U, S, Vh, _place(workspace, flat), failed, m, n, ld, ldv, int(rows < columns))
    run(S.numel() // n, WARP * warps, shared, *arguments)
    _check(failed)
    return U, S, Vh


def _warps(rows: int) -> int:
    """One for up to 32 rows; else one for about 32 rows, and one that follows the form."""
    if rows <= WARP:
        return 1
    return min(MOST_WARPS, 1 + max(2, 2 ** ((rows - 1) // WARP).bit_length()))


def _kernel(name: str, flat: Tensor, warps: int, vectors: bool, chip: bool) -> Kernel:
    real = "double" if flat.dtype.to_real() == torch.float64 else "float"
    found = kernel(
        FOLDER / f"{name}.cu",
        f"{name}_kernel",
        flat.device,
        REAL=real,
        COMPLEX=int(flat.is_complex()),
        WARPS=warps,
        VECTORS=int(vectors),
        ON_CHIP=int(chip),
    )
    assert found is not None
    return found


def _place(workspace: Tensor | None, other: Tensor) -> Tensor:
    return other if workspace is None else workspace


@lru_cache
def _shared_memory(device: torch.device) -> int:
    """Bytes that a block may have."""
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin


def _check(failed: Tensor) -> None:
    status = int(failed)
    if status & NOT_FINITE:
        raise torch.linalg.LinAlgError("matrix holds NaN or infinity")
    if status:
        raise torch.linalg.LinAlgError("a decomposition has not converged")
