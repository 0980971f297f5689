"""The largest singular value and its vectors, without the rest of the decomposition."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels._checks import require_finite, require_matrix
from kernels._operator import operator
from kernels.eigh import decompose, eigh_operator
from kernels.svd import inverse_above

SAFE = (1e-250, 1e250)  # traces of Gram matrices in double precision far from over- and underflow
SQUARED = 64  # rows up to which squaring the Gram matrices of a batch is cheaper than decomposing them
FEW = 4  # matrices up to which a decomposition takes less time to call
SQUARINGS = 56


class LeadingTriplet(NamedTuple):
    """The best rank-one approximation sigma u v^H."""

    sigma: Tensor
    u: Tensor
    v: Tensor


def leading_singular_triplet(matrix: Tensor) -> LeadingTriplet:
    """The best rank-one approximation sigma u v^H of each matrix of a batch.

    With B = A A^H (of the shorter side, A scaled by a power of two so that nothing over- or underflows), u
    is B's leading eigenvector, sigma v = A^H u. A Gram matrix squares the condition number, which spoils
    small singular values but not the largest: sigma is within some ten units in the last place, and u, v
    within eps s_1 / (s_1 - s_2), as by a full decomposition. Single precision forms B in double on a CPU.

    Args:
        matrix: (..., m, n) with m, n >= 1; float32, float64, complex64 or complex128.

    Returns:
        sigma (...), real, u (..., m) and v (..., n) of unit norm with A^H u = sigma v and A v = sigma u.
        Phase: the entry of u of largest modulus (the first of equals) is real and positive.
        Of a zero matrix, u and v are the first unit vectors.

    Gradient: by the resolvent of B at its leading eigenvalue. Convention: factors 1 / (s_1^2 - s_j^2) are 0
    where the difference is below 10 max(m, n) eps s_1^2, and 1 / sigma is 0 for a zero matrix; it is finite
    everywhere.

    Raises:
        ValueError: the shape or the dtype is not served.
        torch.linalg.LinAlgError: `matrix` holds NaN or infinity.

    Source: Golub and Van Loan, Matrix Computations, section 8.6; nested, it is the M-step of He and Joseph,
    "Bayesian Algorithms for Kronecker-structured Sparse Vector Recovery", 2024.

    Example:
        >>> sigma, u, v = leading_singular_triplet(torch.tensor([[0.0, -2.0], [0.0, 0.0]]))
        >>> sigma, u, v
        (tensor(2.), tensor([1., 0.]), tensor([ 0., -1.]))
    """
    require_matrix("matrix", matrix)
    if 0 in matrix.shape[-2:]:
        raise ValueError(f"matrix must have at least one row and column, got shape {tuple(matrix.shape)}")
    return LeadingTriplet(*_leading_singular_triplet(matrix))


def reference(matrix: Tensor) -> LeadingTriplet:
    """What `leading_singular_triplet` computes, by a full decomposition."""
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return LeadingTriplet(S[..., 0], *_fix_phase(U[..., 0], Vh[..., 0, :].conj()))


def _fix_phase(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    phase = u.gather(-1, u.abs().argmax(-1, keepdim=True)).sgn().conj_physical()
    return u * phase, v * phase


def _power_of_two(largest: Tensor) -> Tensor:
    """The power of two just above each number; 1 for 0."""
    exponent = torch.frexp(largest).exponent.clamp(*_exponents(largest.dtype))
    return torch.ldexp(torch.ones_like(largest), exponent)


def _largest_entry(matrix: Tensor) -> Tensor:
    """The largest real or imaginary part (..., 1, 1), without a copy of the matrix."""
    parts = torch.view_as_real(matrix.resolve_conj()).flatten(-2) if matrix.is_complex() else matrix
    return torch.maximum(parts.amax((-2, -1), keepdim=True), -parts.amin((-2, -1), keepdim=True))


def _exponents(dtype: torch.dtype) -> tuple[int, int]:
    return (-126, 127) if dtype == torch.float32 else (-1022, 1023)


def _forward(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    tall = matrix.shape[-2] > matrix.shape[-1]
    sigma, u, v = _of_wide(_adjoint(matrix) if tall else matrix)
    u, v = _fix_phase(v, u) if tall else _fix_phase(u, v)
    u, v = (vector.to(matrix.dtype).contiguous() for vector in (u, v))
    return sigma.to(matrix.dtype.to_real()), u, v


def _of_wide(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sigma, u and v of matrices with no more rows than columns."""
    if matrix.is_cuda:
        from kernels import _triton_leading_triplet

        if _triton_leading_triplet.serves(matrix):
            unit, powers = _near_one(matrix)
            return _triplet(*_triton_leading_triplet.leading_vector(unit), powers)
    scale: Tensor | None = None
    wide = _widened(matrix)
    gram = wide @ _adjoint(wide)
    if not _safe(gram):
        wide, scale = _near_one(wide)
        gram = wide @ _adjoint(wide)
    squared = gram.shape[-1] <= SQUARED and gram.shape[:-2].numel() > FEW
    u = _by_squaring(gram) if squared else decompose(gram)[1][..., -1]
    return _triplet(u, torch.conj_physical(torch.conj_physical(u)[..., None, :] @ wide)[..., 0, :], scale)


def _triplet(u: Tensor, image: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """From u and A^H u, of a matrix A that was divided by `scale`."""
    sigma = torch.linalg.vector_norm(image, dim=-1)
    return sigma if scale is None else sigma * scale, u, image / sigma[..., None]


def _safe(gram: Tensor) -> bool:
    """Whether no matrix is zero, near the ends of the exponent's range, or not finite."""
    if gram.numel() == 0:
        return True
    least, largest = torch.aminmax(_trace(gram))
    return SAFE[0] < float(least) and float(largest) < SAFE[1]


def _near_one(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Each matrix over a power of two (...), its scale. A zero matrix: e_1 e_1^H, of scale 0."""
    largest = _largest_entry(matrix)
    require_finite("matrix", largest)
    scale = _power_of_two(largest)
    unit = matrix / scale
    unit[..., :1, :1] += largest == 0
    return unit, torch.where(largest == 0, 0, scale)[..., 0, 0]


def _by_squaring(gram: Tensor) -> Tensor:
    """The leading eigenvector, up to its phase, of semidefinite matrices that are not zero.

    G <- G^2 / tr(G^2) tends to u u^H. Each squaring squares the ratio of the second eigenvalue to the first,
    and widens the gap, so that rounding enters mostly at the first. Four squarings share one division: of
    trace 1 and up to 64 rows, their leading eigenvalue stays above 64^-16. It ends when tr(G^2) is 1 at
    tr(G) = 1; among equal leading eigenvalues any vector will do.
    """
    gram = gram / _trace(gram)
    for _ in range(SQUARINGS // 4):
        for _ in range(4):
            gram = gram @ gram
        gram = gram / _trace(gram)
        purity = torch.linalg.vector_norm(gram, dim=(-2, -1)).square()
        if float(purity.amin()) > 1 - 4 * torch.finfo(purity.dtype).eps:
            break
    pivot = gram.diagonal(dim1=-2, dim2=-1).real.argmax(-1)
    column = gram.gather(-1, pivot[..., None, None].expand(*gram.shape[:-1], 1))[..., 0]
    return column / torch.linalg.vector_norm(column, dim=-1, keepdim=True)


def _trace(gram: Tensor) -> Tensor:
    """(..., 1, 1)."""
    return gram.diagonal(dim1=-2, dim2=-1).real.sum(-1)[..., None, None]


def _widened(matrix: Tensor) -> Tensor:
    return matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)


def _fake(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    *batch, m, n = matrix.shape
    real = matrix.dtype.to_real()
    return matrix.new_empty(batch, dtype=real), matrix.new_empty(*batch, m), matrix.new_empty(*batch, n)


def _save(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx: Any, grad_sigma: Tensor, grad_u: Tensor, grad_v: Tensor) -> Tensor:
    matrix, sigma, u, v = ctx.saved_tensors
    zero = (sigma == 0)[..., None, None]
    scale = torch.where(zero, 1, sigma[..., None, None])
    u, v = u[..., None], v[..., None]
    grad_u, grad_v = grad_u[..., None] / scale, grad_v[..., None] / scale
    if matrix.is_complex():
        grad_u = grad_u + _phase_gradient(u, (_inner(u, grad_u) + _inner(v, grad_v)).imag)
    if matrix.shape[-2] > matrix.shape[-1]:
        grad = _adjoint(_gram_gradient(_adjoint(matrix / scale), v, u, grad_v, grad_u))
    else:
        grad = _gram_gradient(matrix / scale, u, v, grad_u, grad_v)
    return grad_sigma[..., None, None] * u * _adjoint(v) + torch.where(zero, 0, grad)


def _inner(x: Tensor, y: Tensor) -> Tensor:
    """x^H y of columns (..., n, 1)."""
    return (torch.conj_physical(x) * y).sum(-2, keepdim=True)


def _adjoint(x: Tensor) -> Tensor:
    """x^H, conjugated at once."""
    return torch.conj_physical(x).mT


def _phase_gradient(u: Tensor, rotation: Tensor) -> Tensor:
    """What a loss that turns with the common phase of u and v at rate `rotation` adds at the pivot of u."""
    pivot = u.abs() == u.abs().amax(-2, keepdim=True)
    first = pivot & (pivot.cumsum(-2) == 1)
    return torch.where(first, -1j * rotation / torch.where(first, u, 1), 0)


def _gram_gradient(unit: Tensor, u: Tensor, v: Tensor, grad_u: Tensor, grad_v: Tensor) -> Tensor:
    """Through u, the leading eigenvector of A A^H with s_1 = 1, and v = A^H u / |A^H u|, both (..., n, 1)."""
    w = _resolvent(unit, grad_u + unit @ grad_v)
    turned = grad_v - v * _inner(v, grad_v).real + _adjoint(unit) @ w
    return u * _adjoint(turned) + w * _adjoint(v)


def _resolvent(unit: Tensor, x: Tensor) -> Tensor:
    """(1 - A A^H)^+ x on the complement of the leading eigenvectors of A A^H, whose eigenvalue is 1."""
    wide = _widened(unit)
    values, Q = eigh_operator(wide @ _adjoint(wide))
    tolerance = 10 * max(unit.shape[-2:]) * torch.finfo(unit.dtype).eps
    inverse = inverse_above(values[..., -1:] - values, tolerance)[..., None]
    return (Q @ (inverse * (_adjoint(Q) @ x.to(Q.dtype)))).to(x.dtype)


_leading_singular_triplet = operator("leading_singular_triplet", _forward, _fake, _save, _backward)
