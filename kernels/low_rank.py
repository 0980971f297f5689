"""Singular value thresholding and the alternation of robust principal component analysis."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .dispatch.checks import (
    require_broadcast,
    require_finite,
    require_matrix,
    require_one_device,
    require_sign,
)
from .dispatch.lapack import over_batch
from .dispatch.operator import operator
from .svd import decompose, inverse_above, svd_operator, unit_scale


class LowRankSparse(NamedTuple):
    """One iterate of robust principal component analysis."""

    low_rank: Tensor
    sparse: Tensor
    dual: Tensor


def singular_value_threshold(
    matrix: Tensor,
    threshold: Tensor | float,
    *,
    weights: Tensor | None = None,
    partial: int = 0,
    rank: int | None = None,
) -> Tensor:
    """Proximal operator of the nuclear norm, U diag(max(s_i - t_i, 0)) V^H, and its relatives.

    With t_i = threshold for every i this is argmin_B threshold |B|_* + |B - A|_F^2 / 2. The relatives
    differ in t_i: weighted, t_i = threshold weights_i (the proximal operator of the weighted norm where the
    weights ascend); partial sum, t_i = 0 for i < partial; truncated, t_i infinite for i >= rank. They
    combine.

    Args:
        matrix: (..., m, n), float32, float64, complex64 or complex128; k = min(m, n).
        threshold: non-negative; a number, or real and broadcastable to the batch shape (...). Differentiable.
        weights: non-negative, real, (k,) or (..., k), for the singular values in descending order.
        Differentiable.
        partial: how many leading singular values are left as they are.
        rank: the largest rank of the result.

    Returns:
        The thresholded matrix (..., m, n), within some hundred ulp of s_1. Single precision on a CPU goes
        through the Gram matrix of the shorter side in double precision, A (V diag(max(1 - t / s, 0)) V^H):
        its squared condition number costs at most 1e-16 s_1^2 / t, below single precision for t > 1e-8 s_1.
        Otherwise by `svd`.

    Gradient: the divided differences of the shrinkage between each pair of singular values, exact also
    where they coincide or vanish. Convention: at s_i = t_i the slope is 1; where coinciding singular values
    have different t_i the difference quotient is replaced by the mean slope.

    Raises:
        ValueError: a shape, a dtype, a device or a negative number.
        torch.linalg.LinAlgError: `matrix` holds NaN or infinity.

    Source: Cai, Candes and Shen, "A singular value thresholding algorithm for matrix completion", 2010,
    theorem 2.1; Oh et al., "Partial sum minimization of singular values in robust PCA", 2016, theorem 1; Gu
    et al., "Weighted nuclear norm minimization and its applications to low level vision", 2017; gradient:
    Lewis and Sendov, 2005.

    Example:
        >>> singular_value_threshold(torch.diag(torch.tensor([3.0, 2.0, 0.5])), 1.0).diagonal()
        tensor([2., 1., 0.])
        >>> singular_value_threshold(torch.diag(torch.tensor([3.0, 2.0, 0.5])), 1.0, partial=1).diagonal()
        tensor([3., 1., 0.])
    """
    require_matrix("matrix", matrix)
    return _shrink_singular_values(matrix, _thresholds(matrix, threshold, weights, partial, rank))


def _thresholds(
    matrix: Tensor, threshold: Tensor | float, weights: Tensor | None, partial: int, rank: int | None
) -> Tensor:
    """t_i of every singular value, (..., k)."""
    require_one_device(matrix=matrix, threshold=threshold, weights=weights)
    for name, value in {"threshold": threshold, "weights": weights, "partial": partial, "rank": rank}.items():
        require_sign(name, value)
    *batch, m, n = matrix.shape
    values = torch.Size((*batch, min(m, n)))
    level = torch.as_tensor(threshold, dtype=matrix.real.dtype, device=matrix.device)
    require_broadcast("threshold", level.shape, "the batch shape of matrix", values[:-1])
    level = level[..., None]
    if weights is not None:
        require_broadcast("weights", weights.shape, "the singular values of matrix", values)
        level = level * weights.to(level.dtype)
    index = torch.arange(values[-1], device=matrix.device)
    level = torch.where(index < partial, 0, level.expand(values))
    return level if rank is None else torch.where(index < rank, level, torch.inf)


def reference(matrix: Tensor, thresholds: Tensor) -> Tensor:
    """What `singular_value_threshold` computes, by a full decomposition, for t_i in `thresholds` (..., k)."""
    U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
    return (U * (S - thresholds).clamp_min(0)[..., None, :]) @ Vh


def _forward(matrix: Tensor, thresholds: Tensor) -> Tensor:
    if matrix.is_cuda or torch.finfo(matrix.dtype).bits > 32:
        U, S, Vh = decompose(matrix)
        return (U * (S - thresholds).clamp_min(0)[..., None, :]) @ Vh
    require_finite("matrix", matrix)
    if matrix.shape[-2] < matrix.shape[-1]:
        return _by_gram(matrix.mT, thresholds).mT.contiguous()
    return _by_gram(matrix, thresholds)


def _by_gram(matrix: Tensor, thresholds: Tensor) -> Tensor:
    wide = matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)
    eigenvalues, V = over_batch(torch.linalg.eigh, wide.mH @ wide)
    s, t = eigenvalues.clamp_min(0).sqrt(), thresholds.flip(-1).double()
    kept = torch.where(s > t, 1 - t / s, 0)
    return matrix @ ((V * kept[..., None, :]) @ V.mH).to(matrix.dtype)


def _fake(matrix: Tensor, thresholds: Tensor) -> Tensor:
    return matrix.new_empty(matrix.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    matrix, thresholds = ctx.saved_tensors
    if matrix.numel() == 0:
        return grad.clone(), torch.zeros_like(thresholds)
    U, S, Vh = svd_operator(matrix)
    active = thresholds <= S
    slope = active.to(S.dtype)
    level = torch.where(active, thresholds, 0)
    ratio = slope * (1 - level / torch.where(S > 0, S, 1))
    inner = U.mH @ grad @ Vh.mH
    plus, minus = _difference_quotients(S, slope, level, max(matrix.shape[-2:]))
    core = plus * (inner + inner.mH) / 2 + minus * (inner - inner.mH) / 2
    result = U @ core @ Vh
    if matrix.shape[-2] > matrix.shape[-1]:
        result = result + ((grad @ Vh.mH - U @ inner) * ratio[..., None, :]) @ Vh
    if matrix.shape[-2] < matrix.shape[-1]:
        result = result + (U * ratio[..., None, :]) @ (U.mH @ grad - inner @ Vh)
    return result, -slope * inner.diagonal(dim1=-2, dim2=-1).real


def _difference_quotients(S: Tensor, slope: Tensor, level: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(f_i -+ f_j) / (s_i -+ s_j) with f_i = slope_i (s_i - level_i); the mean slope where that is 0 / 0."""
    scale = unit_scale(S)
    s, shift = slope * S / scale, level / scale
    tolerance = 10 * size * torch.finfo(S.dtype).eps
    mean_slope = (slope[..., :, None] + slope[..., None, :]) / 2

    def quotient(sign: int) -> Tensor:
        outer = [x[..., :, None] + sign * x[..., None, :] for x in (S / scale, s, shift)]
        inverse = inverse_above(outer[0], tolerance)
        return torch.where(inverse == 0, mean_slope, (outer[1] - outer[2]) * inverse)

    return quotient(-1), quotient(1)


_shrink_singular_values = operator("shrink_singular_values", _forward, _fake, _save, _backward)


def lowrank_sparse_step(
    observation: Tensor, sparse: Tensor, dual: Tensor, mu: Tensor | float, lambda_: Tensor | float
) -> LowRankSparse:
    """One alternation of the inexact augmented Lagrangian method for robust principal component analysis.

    Minimises |B|_* + lambda |O|_1 + <Y, D - B - O> + mu/2 |D - B - O|_F^2 over B, then over O, and ascends
    in Y: B' = SVT(D - O + Y / mu, 1 / mu),  R = D - B' + Y / mu,  O' = soft(R, lambda / mu),  Y' = mu (R -
    O').

    Args:
        observation, sparse, dual: D, O and Y, (..., m, n) of one shape, dtype and device.
        mu, lambda_: positive; a number, or real and broadcastable to the batch shape (...). Differentiable.

    Returns:
        low_rank B', sparse O' and dual Y' (..., m, n). Y' equals Y + mu (D - B' - O'), written as the
        remainder of the soft threshold: its entries never exceed lambda.

    Raises:
        ValueError: shapes, dtypes or devices differ, or a number is not positive.
        torch.linalg.LinAlgError: an argument holds NaN or infinity.

    Source: Lin, Chen and Ma, "The augmented Lagrange multiplier method for exact recovery of corrupted
    low-rank matrices", 2010, algorithm 5.

    Example:
        >>> D = torch.tensor([[2.0, 2.0], [2.0, 7.0]])
        >>> step = lowrank_sparse_step(D, torch.zeros(2, 2), torch.zeros(2, 2), mu=1.0, lambda_=0.5)
        >>> bool(step.dual.abs().max() <= 0.5)
        True
    """
    require_matrix("observation", observation)
    for name, tensor in (("sparse", sparse), ("dual", dual)):
        if tensor.shape != observation.shape or tensor.dtype != observation.dtype:
            raise ValueError(
                f"{name} {tuple(tensor.shape)} {tensor.dtype} must match "
                f"observation {tuple(observation.shape)} {observation.dtype}"
            )
    require_one_device(observation=observation, sparse=sparse, dual=dual, mu=mu, lambda_=lambda_)
    penalty = _positive("mu", mu, observation)
    weight = _positive("lambda_", lambda_, observation)
    level = (1 / penalty)[..., None, None]
    low_rank = singular_value_threshold(observation - sparse + level * dual, level[..., 0, 0])
    return LowRankSparse(low_rank, *sparse_dual_update(observation, low_rank, dual, penalty, weight))


def _positive(name: str, value: Tensor | float, observation: Tensor) -> Tensor:
    """`value` at every matrix of the batch."""
    require_sign(name, value, positive=True)
    level = torch.as_tensor(value, dtype=observation.real.dtype, device=observation.device)
    require_broadcast(name, level.shape, "the batch shape of observation", observation.shape[:-2])
    return level.expand(observation.shape[:-2])


def sparse_dual_reference(
    observation: Tensor, low_rank: Tensor, dual: Tensor, mu: Tensor, lambda_: Tensor
) -> tuple[Tensor, Tensor]:
    """O = soft(R, lambda / mu) and Y' = mu (R - O), R = D - B + Y / mu; mu and lambda (...)."""
    penalty = mu[..., None, None]
    residual = observation - low_rank + dual / penalty
    threshold = lambda_[..., None, None] / penalty
    if residual.is_complex():
        size = residual.abs()
        remainder = residual * torch.where(size > threshold, threshold / torch.where(size > 0, size, 1), 1)
    else:
        remainder = torch.clamp(residual, -threshold, threshold)
    return residual - remainder, penalty * remainder


def _update_forward(
    observation: Tensor, low_rank: Tensor, dual: Tensor, mu: Tensor, lambda_: Tensor
) -> tuple[Tensor, Tensor]:
    if observation.is_cuda:
        from .gpu.low_rank import sparse_dual_update

        return sparse_dual_update(observation, low_rank, dual, mu, lambda_)
    sparse, new_dual = sparse_dual_reference(observation, low_rank, dual, mu, lambda_)
    return sparse.contiguous(), new_dual.contiguous()


def _update_fake(
    observation: Tensor, low_rank: Tensor, dual: Tensor, mu: Tensor, lambda_: Tensor
) -> tuple[Tensor, Tensor]:
    return observation.new_empty(observation.shape), observation.new_empty(observation.shape)


def _update_save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _update_backward(ctx: Any, grad_sparse: Tensor, grad_dual: Tensor) -> tuple[Tensor, ...]:
    observation, low_rank, dual, mu, lambda_ = ctx.saved_tensors
    penalty = mu[..., None, None]
    threshold = lambda_[..., None, None] / penalty
    residual = observation - low_rank + dual / penalty
    size = residual.abs()
    kept = size > threshold
    direction = torch.where(kept, residual / torch.where(kept, size, 1), 0)
    shrunk = torch.where(kept, threshold / torch.where(kept, size, 1), 1)
    through = grad_sparse - penalty * grad_dual
    along = (direction.conj() * through).real
    grad_residual = (
        (1 - shrunk) * through + torch.where(kept, shrunk * direction * along, 0) + penalty * grad_dual
    )
    grad_threshold = -along.sum((-2, -1))
    remainder = torch.where(kept, threshold * direction, residual)
    grad_mu = (remainder.conj() * grad_dual - dual.conj() * grad_residual / penalty**2).real.sum((-2, -1))
    grad_mu = grad_mu - grad_threshold * lambda_ / mu**2
    return grad_residual, -grad_residual, grad_residual / penalty, grad_mu, grad_threshold / mu


sparse_dual_update = operator(
    "sparse_dual_update", _update_forward, _update_fake, _update_save, _update_backward
)
