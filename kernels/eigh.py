"""Batched Hermitian eigendecomposition."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .dispatch.checks import require_finite, require_matrix
from .dispatch.lapack import over_batch
from .dispatch.operator import operator
from .svd import inverse_above, on_gpu

LIBRARY_BATCH = 4096  # matrices in one of its calls, which takes 1.1 to 1.3 MB of workspace for each


class Eigh(NamedTuple):
    """A = eigenvectors diag(eigenvalues) eigenvectors^H."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def eigh(matrix: Tensor) -> Eigh:
    """Eigendecomposition A = Q diag(l) Q^H of a batch of small Hermitian matrices.

    Args:
        matrix: (..., n, n), Hermitian, float32, float64, complex64 or complex128. Only the lower triangle and
            the real part of the diagonal are read.

    Returns:
        eigenvalues (..., n), real, ascending, and eigenvectors (..., n, n) in columns. On every path
        |Q l Q^H - A|, |Q^H Q - I| and |l - l_exact| / |A|_F are within some hundred units in the last place:
        eigenvalues far below the norm have an absolute, not a relative accuracy. On a CPU this is LAPACK's
        divide and conquer with the batch split over threads; on a GPU, implicit QL after Householder's
        reflections, a block a matrix, and the library for few matrices of n > 32 (`gpu.dense.LIBRARY`).

    Gradient: Q (diag(g_l) + F o Q^H g_Q) Q^H, Hermitian part, with F_ij = 1 / (l_j - l_i). Convention: F_ij
    = 0 where |l_j - l_i| <= 10 n eps max|l|. The gradient is then finite everywhere, and exact for losses
    that do not depend on the choice of basis within a coinciding group, nor on the phases of the
    eigenvectors.

    Raises:
        ValueError: the shape or the dtype is not served.
        torch.linalg.LinAlgError: `matrix` holds NaN or infinity.

    Source: Golub and Van Loan, Matrix Computations, chapter 8; Giles, "Collected matrix derivative
    results", 2008, section 3.1.

    Example:
        >>> eigenvalues, Q = eigh(torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
        >>> eigenvalues
        tensor([1., 3.])
    """
    require_matrix("matrix", matrix, square=True)
    return Eigh(*eigh_operator(matrix))


def reference(matrix: Tensor) -> Eigh:
    """What `eigh` computes, by PyTorch's own call."""
    return Eigh(*torch.linalg.eigh(matrix))


def _forward(matrix: Tensor) -> tuple[Tensor, Tensor]:
    if on_gpu("eigh", matrix):
        from .gpu import dense

        return dense.eigh(matrix)  # which looks itself
    require_finite("matrix", matrix)
    eigenvalues, eigenvectors = decompose(matrix)
    return eigenvalues, eigenvectors.contiguous()


def decompose(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Of matrices that are known to be finite; nothing records it."""
    if on_gpu("eigh", matrix):
        from .gpu import dense

        return dense.eigh(matrix)
    if matrix.is_cuda and matrix.numel():
        return _scaled(matrix)
    return _by_lapack(matrix)


def _by_lapack(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """In double precision where single fails: divide and conquer gives NaN for some Gram matrices of low rank.

    Raises torch.linalg.LinAlgError where double precision fails as well.
    """
    single = matrix.dtype.to_real() == torch.float32
    try:
        eigenvalues, eigenvectors = over_batch(torch.linalg.eigh, matrix)
        if bool(eigenvalues.isfinite().all()):
            return eigenvalues, eigenvectors
    except torch.linalg.LinAlgError:
        if not single:
            raise
    if not single:
        raise torch.linalg.LinAlgError("matrix has a decomposition that does not converge")
    wide = _by_lapack(matrix.to(torch.complex128 if matrix.is_complex() else torch.float64))
    return wide[0].to(matrix.dtype.to_real()), wide[1].to(matrix.dtype)


def _scaled(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """By the GPU library, whose results are wrong without a word for matrices far from one."""
    largest = matrix.abs().amax((-2, -1), keepdim=True)
    scale = torch.where(largest > 0, largest, 1)
    scaled = (matrix / scale).reshape(-1, *matrix.shape[-2:])
    parts = [torch.linalg.eigh(part) for part in scaled.split(LIBRARY_BATCH)]
    eigenvalues, eigenvectors = (torch.cat(part) for part in zip(*parts, strict=True))
    return eigenvalues.reshape(matrix.shape[:-1]) * scale[..., 0], eigenvectors.reshape(matrix.shape)


def _fake(matrix: Tensor) -> tuple[Tensor, Tensor]:
    return matrix.new_empty(matrix.shape[:-1], dtype=matrix.dtype.to_real()), matrix.new_empty(matrix.shape)


def _save_factors(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output)


def _backward(ctx: Any, grad_values: Tensor, grad_vectors: Tensor) -> Tensor:
    values, Q = ctx.saved_tensors
    if values.shape[-1] == 0:
        return Q @ Q.mH
    largest = values.abs().amax(-1, keepdim=True)
    scale = torch.where(largest > 0, largest, 1)
    scaled = values / scale
    tolerance = 10 * values.shape[-1] * torch.finfo(values.dtype).eps
    gaps = inverse_above(scaled[..., None, :] - scaled[..., :, None], tolerance)
    core = torch.diag_embed(grad_values) + gaps * (Q.mH @ grad_vectors) / scale[..., None]
    return Q @ ((core + core.mH) / 2) @ Q.mH


eigh_operator = operator("eigh", _forward, _fake, _save_factors, _backward)
