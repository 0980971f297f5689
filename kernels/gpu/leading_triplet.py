"""The leading left singular vector u and A^H u of small wide matrices, a block of CUDA C for each; see
leading_triplet.cu."""

from pathlib import Path

import torch
from torch import Tensor

from .compile import Kernel, kernel

SOURCE = Path(__file__).with_suffix(".cu")
LARGEST_REAL, LARGEST_COMPLEX = 64, 32
CHUNK = 32
SQUARINGS = {4: 26, 8: 54}


def serves(matrix: Tensor) -> bool:
    """Whether the Gram matrix fits on chip, and there is a compiler."""
    largest = LARGEST_COMPLEX if matrix.is_complex() else LARGEST_REAL
    few_rows = matrix.numel() > 0 and matrix.shape[-2] <= largest
    return few_rows and _kernel(matrix.dtype, matrix.device) is not None


def leading_vector(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """u (..., m) and A^H u (..., n) of matrices (..., m, n) with m <= n, scaled near one."""
    *batch, m, n = matrix.shape
    flat = matrix.resolve_conj().reshape(-1, m, n).contiguous()
    u, image = flat.new_empty(len(flat), m), flat.new_empty(len(flat), n)
    run = _kernel(matrix.dtype, matrix.device)
    assert run is not None
    squarings = SQUARINGS[matrix.dtype.to_real().itemsize]
    warps = warps_of(m)
    run(len(flat), 32 * warps, memory(matrix.dtype, m, warps), flat, u, image, squarings, m, n)
    return u.reshape(*batch, m), image.reshape(*batch, n)


def warps_of(m: int) -> int:
    """Warps of a block, for m x m entries of a Gram matrix."""
    return 1 if m <= 8 else 4 if m <= 16 else 8


def memory(dtype: torch.dtype, m: int, warps: int) -> int:
    """Bytes of shared memory: two Gram matrices, a part of the matrix, u, and what sums take."""
    parts = [(m * (m | 1), 2), (m * (CHUNK + 1), 1), (m, 1)]
    numbers = sum(times * _rounded(count * dtype.itemsize) for count, times in parts)
    return numbers + _rounded(2 * warps * dtype.to_real().itemsize)


def _rounded(size: int) -> int:
    return -(-size // 16) * 16


def _kernel(dtype: torch.dtype, device: torch.device) -> Kernel | None:
    return kernel(SOURCE, "leading_vector_kernel", device, **definitions(dtype))


def definitions(dtype: torch.dtype) -> dict[str, str | int]:
    """Of the preprocessor: all warps of a block work on one matrix."""
    real = "double" if dtype.to_real() == torch.float64 else "float"
    return {"REAL": real, "COMPLEX": int(dtype.is_complex), "GROUP": 0, "LANES": 32}
