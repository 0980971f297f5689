"""The largest singular value and its vectors, without the rest of the decomposition."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .dispatch.checks import require_finite, require_matrix
from .dispatch.operator import operator
from .eigh import decompose, eigh_operator
from .kronecker import product
from .svd import inverse_above

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
    sigma, u, image = rank_one(matrix)
    return LeadingTriplet(sigma, *_fix_phase(u, _unit(image, sigma)))


def reference(matrix: Tensor) -> LeadingTriplet:
    """What `leading_singular_triplet` computes, by a full decomposition."""
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return LeadingTriplet(S[..., 0], *_fix_phase(U[..., 0], Vh[..., 0, :].conj()))


def _fix_phase(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    phase = u.gather(-1, u.abs().argmax(-1, keepdim=True)).sgn().conj()
    return u * phase, v * phase


def power_of_two(largest: Tensor) -> Tensor:
    """The power of two just above each number; 1 for 0."""
    exponent = torch.frexp(largest).exponent.clamp(*_exponents(largest.dtype))
    return torch.ldexp(torch.ones_like(largest), exponent)


def _largest_entry(matrix: Tensor) -> Tensor:
    """The largest real or imaginary part (..., 1, 1), without a copy of the matrix."""
    parts = torch.view_as_real(matrix.resolve_conj()).flatten(-2) if matrix.is_complex() else matrix
    return torch.maximum(parts.amax((-2, -1), keepdim=True), -parts.amin((-2, -1), keepdim=True))


def _exponents(dtype: torch.dtype) -> tuple[int, int]:
    return (-126, 127) if dtype == torch.float32 else (-1022, 1023)


def _unit(image: Tensor, sigma: Tensor) -> Tensor:
    """v of sigma v, the first unit vector where sigma is zero."""
    zero = (sigma == 0).unsqueeze(-1)
    first = torch.arange(image.shape[-1], device=image.device) == 0
    return torch.where(zero, first.to(image.dtype), image / torch.where(zero, 1, sigma.unsqueeze(-1)))


def _forward(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if matrix.shape[-2] > matrix.shape[-1]:
        sigma, v, image, scale = _of_wide(_adjoint(matrix))
        u, image = image / sigma.unsqueeze(-1), v * sigma.unsqueeze(-1)
    else:
        sigma, u, image, scale = _of_wide(matrix)
    if scale is not None:
        sigma, image = sigma * scale, image * scale.unsqueeze(-1)
    dtype = matrix.dtype
    return sigma.to(dtype.to_real()), u.to(dtype).contiguous(), image.to(dtype).contiguous()


def _of_wide(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """sigma, u and sigma v = A^H u of matrices with no more rows than columns; sigma's scale (None: 1)."""
    if matrix.is_cuda:
        from .gpu import leading_triplet

        if leading_triplet.serves(matrix):
            unit, scale = _near_one(matrix)
            u, image = leading_triplet.leading_vector(unit)
            return torch.linalg.vector_norm(image, dim=-1), u, image, scale
    wide = _widened(matrix)
    adjoint = _adjoint(wide)
    gram = product(wide, adjoint)
    if not _safe(gram):
        unit, scale = _near_one(wide)
        return *_of_wide(unit)[:3], scale
    squared = gram.shape[-1] <= SQUARED and gram.shape[:-2].numel() > FEW
    column = _by_squaring(gram) if squared else decompose(gram)[1][..., -1:]
    image = product(adjoint, column).squeeze(-1)
    return torch.linalg.vector_norm(image, dim=-1), column.squeeze(-1), image, None


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
    scale = power_of_two(largest)
    unit = matrix / scale
    unit[..., :1, :1] += largest == 0
    return unit, torch.where(largest == 0, 0, scale)[..., 0, 0]


def _by_squaring(gram: Tensor) -> Tensor:
    """The leading eigenvector (..., m, 1), up to its phase, of semidefinite matrices that are not zero.

    G <- G^2 / tr(G^2) tends to u u^H. Each squaring squares the ratio of the second eigenvalue to the first,
    and widens the gap, so that rounding enters mostly at the first. Four squarings share one division: of
    trace 1 and up to 64 rows, their leading eigenvalue stays above 64^-16. It ends when tr(G^2) is 1 at
    tr(G) = 1; among equal leading eigenvalues any vector will do.
    """
    gram = gram / _trace(gram)[..., None, None]
    for _ in range(SQUARINGS // 4):
        for _ in range(4):
            gram = gram @ gram
        gram = gram / _trace(gram)[..., None, None]
        purity = torch.linalg.vector_norm(gram, dim=(-2, -1)).square()
        if float(purity.amin()) > 1 - 4 * torch.finfo(purity.dtype).eps:
            break
    pivot = gram.diagonal(dim1=-2, dim2=-1).real.argmax(-1)
    column = gram.gather(-1, pivot[..., None, None].expand(*gram.shape[:-1], 1))
    return column / torch.linalg.vector_norm(column, dim=-2, keepdim=True)


def _trace(gram: Tensor) -> Tensor:
    return gram.diagonal(dim1=-2, dim2=-1).real.sum(-1)


def _widened(matrix: Tensor) -> Tensor:
    if matrix.dtype in (torch.float64, torch.complex128):
        return matrix
    return matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)


def _fake(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    *batch, m, n = matrix.shape
    real = matrix.dtype.to_real()
    return matrix.new_empty(batch, dtype=real), matrix.new_empty(*batch, m), matrix.new_empty(*batch, n)


def _save(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _backward(ctx: Any, grad_sigma: Tensor, grad_u: Tensor, grad_image: Tensor) -> Tensor:
    """Of a loss that depends on no common phase of u and the image."""
    matrix, sigma, u, image = ctx.saved_tensors
    zero = (sigma == 0)[..., None, None]
    scale = torch.where(zero, 1, sigma[..., None, None])
    u, v, grad_v = u[..., None], _unit(image, sigma)[..., None], grad_image[..., None]
    grad_u = grad_u[..., None] / scale
    if matrix.shape[-2] > matrix.shape[-1]:
        grad = _adjoint(_gram_gradient(_adjoint(matrix / scale), v, u, grad_v, grad_u))
    else:
        grad = _gram_gradient(matrix / scale, u, v, grad_u, grad_v)
    grad_sigma = grad_sigma[..., None, None] + _inner(v, grad_v).real
    return grad_sigma * u * _adjoint(v) + torch.where(zero, 0, grad)


def _inner(x: Tensor, y: Tensor) -> Tensor:
    """x^H y of columns (..., n, 1)."""
    return (torch.conj_physical(x) * y).sum(-2, keepdim=True)


def _adjoint(x: Tensor) -> Tensor:
    """x^H, conjugated at once."""
    return torch.conj_physical(x).mT


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


# sigma, u and sigma v: the triplet but for its phase.
rank_one = operator("leading_singular_triplet", _forward, _fake, _save, _backward)
