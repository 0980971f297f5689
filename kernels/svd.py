"""Thin batched singular value decomposition."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .dispatch.checks import require_finite, require_matrix
from .dispatch.lapack import over_batch
from .dispatch.operator import operator


class SVD(NamedTuple):
    """A = U diag(S) Vh."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def svd(matrix: Tensor) -> SVD:
    """Thin singular value decomposition A = U diag(S) V^H of a batch of matrices.

    Args:
        matrix: (..., m, n), float32, float64, complex64 or complex128; k = min(m, n).

    Returns:
        U (..., m, k) and Vh (..., k, n) with orthonormal columns and rows, S (..., k) real, descending.
        On every path |U S Vh - A|, |U^H U - I| and |S - S_exact| / S_1 are within some hundred units in the
        last place. On a CPU this is LAPACK's divide and conquer with the batch split over threads; on a
        GPU, implicit QR after Householder's reflections, in registers up to m, n = 32, else by a block a matrix
        (after QR where its long side does not fit on chip), and the library for k > 512 and few matrices of
        k > 64 (`gpu.dense.LIBRARY`).

    Gradient (Townsend, "Differentiating the singular value decomposition", 2016): singular vectors are
    defined up to a phase (a loss must not depend on it), and up to rotation where singular values coincide.
    Convention: a factor 1 / (s_j - s_i) or 1 / s_i is 0 where its denominator is below 10 max(m, n) eps s_1.
    The gradient is then finite everywhere, and exact for losses that do not depend on the choice of basis
    within a coinciding or vanishing group.

    Raises:
        ValueError: the shape or the dtype is not served.
        torch.linalg.LinAlgError: `matrix` holds NaN or infinity.

    Source: Golub and Van Loan, Matrix Computations, sections 5.4.8 and 8.6.

    Example:
        >>> matrix = torch.tensor([[3.0, 0.0], [0.0, -4.0], [0.0, 0.0]])
        >>> U, S, Vh = svd(matrix)
        >>> S
        tensor([4., 3.])
        >>> torch.allclose((U * S) @ Vh, matrix)
        True
    """
    require_matrix("matrix", matrix)
    return SVD(*svd_operator(matrix))


def svdvals(matrix: Tensor) -> Tensor:
    """Singular values of a batch of matrices, descending.

    Args:
        matrix: (..., m, n), float32, float64, complex64 or complex128.

    Returns:
        S (..., min(m, n)), real, with the accuracy of `svd`. Its gradient U diag(g) V^H is finite everywhere;
        where values coincide or vanish it is one element of the generalised gradient.

    Raises:
        ValueError: the shape or the dtype is not served.
        torch.linalg.LinAlgError: `matrix` holds NaN or infinity.

    Source: Golub and Van Loan, Matrix Computations, section 8.6.

    Example:
        >>> svdvals(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
        tensor([4., 3.])
    """
    require_matrix("matrix", matrix)
    return _svdvals(matrix)


def reference(matrix: Tensor) -> SVD:
    """What `svd` computes, by PyTorch's own call."""
    return SVD(*torch.linalg.svd(matrix, full_matrices=False))


def on_gpu(name: str, matrix: Tensor) -> bool:
    """Whether `gpu.dense` decomposes the matrices, by its `eigh` or `svd`; it looks for NaN and infinity."""
    if not matrix.is_cuda:
        return False
    from .gpu import dense

    return dense.serves(name, matrix)


def decompose(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if on_gpu("svd", matrix):
        from .gpu import dense

        return dense.svd(matrix)
    require_finite("matrix", matrix)
    U, S, Vh = over_batch(reference, matrix)
    return U.contiguous(), S, Vh.contiguous()


def _fake(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    *batch, m, n = matrix.shape
    k = min(m, n)
    return (
        matrix.new_empty(*batch, m, k),
        matrix.new_empty(*batch, k, dtype=matrix.dtype.to_real()),
        matrix.new_empty(*batch, k, n),
    )


def _save_factors(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output)


def inverse_above(x: Tensor, tolerance: float) -> Tensor:
    """1 / x where |x| exceeds the tolerance, 0 elsewhere."""
    kept = x.abs() > tolerance
    return torch.where(kept, 1 / torch.where(kept, x, 1), 0)


def unit_scale(S: Tensor) -> Tensor:
    """The largest singular value (..., 1), or 1 for a zero matrix."""
    largest = S[..., :1]
    return torch.where(largest > 0, largest, 1)


def _backward(ctx: Any, grad_U: Tensor, grad_S: Tensor, grad_Vh: Tensor) -> Tensor:
    U, S, Vh = ctx.saved_tensors
    m, n = U.shape[-2], Vh.shape[-1]
    if S.shape[-1] == 0:
        return U @ Vh
    V, grad_V = Vh.mH, grad_Vh.mH
    tolerance = 10 * max(m, n) * torch.finfo(S.dtype).eps
    scale = unit_scale(S)
    s = S / scale
    differences = s[..., None, :] - s[..., :, None]
    sums = s[..., None, :] + s[..., :, None]
    gaps = inverse_above(differences, tolerance) * inverse_above(sums, tolerance)
    left, right = U.mH @ grad_U, V.mH @ grad_V
    s_inverse = inverse_above(s, tolerance)
    core = (left - left.mH) * gaps * s[..., None, :] + s[..., :, None] * (right - right.mH) * gaps
    if U.is_complex():
        phase = left.diagonal(dim1=-2, dim2=-1).imag * s_inverse
        core = core + torch.diag_embed(torch.complex(torch.zeros_like(phase), phase))
    grad = U @ (core / scale[..., None] + torch.diag_embed(grad_S).to(U.dtype)) @ Vh
    s_inverse = (s_inverse / scale).to(U.dtype)
    if m > n:
        grad = grad + (grad_U - U @ left) * s_inverse[..., None, :] @ Vh
    if n > m:
        grad = grad + (U * s_inverse[..., None, :]) @ (grad_V - V @ right).mH
    return grad


svd_operator = operator("svd", decompose, _fake, _save_factors, _backward)


def _values_forward(matrix: Tensor) -> Tensor:
    if on_gpu("svd", matrix):
        from .gpu import dense

        return dense.svd(matrix, vectors=False)[1]
    require_finite("matrix", matrix)
    return over_batch(lambda part: (torch.linalg.svdvals(part),), matrix)[0]


def _values_fake(matrix: Tensor) -> Tensor:
    return _fake(matrix)[1]


def _save_matrix(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _values_backward(ctx: Any, grad_S: Tensor) -> Tensor:
    U, _, Vh = svd_operator(*ctx.saved_tensors)
    return (U * grad_S[..., None, :]) @ Vh


_svdvals = operator("svdvals", _values_forward, _values_fake, _save_matrix, _values_backward)
