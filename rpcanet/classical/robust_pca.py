"""Robust principal component analysis of matrices: one augmented Lagrangian loop, three rank penalties."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels import (
    LowRankSparse,
    lowrank_sparse_step,
    singular_value_threshold,
    soft_threshold,
    svd,
    svdvals,
)
from .separation import Separation, iterate, relative_residual

Step = Callable[[Tensor, Tensor, Tensor, Tensor, float], LowRankSparse]
LowRankUpdate = Callable[[Tensor, Tensor], Tensor]


class _Iterate(NamedTuple):
    observation: Tensor
    low_rank: Tensor
    sparse: Tensor
    dual: Tensor
    mu: Tensor
    mu_max: Tensor
    residual: Tensor


def pcp(
    matrix: Tensor, lambda_: float | None = None, tolerance: float | None = None, max_iterations: int = 1000
) -> Separation:
    """Principal component pursuit, by the inexact augmented Lagrangian method.

        min |B|_* + lambda |O|_1   such that   B + O = D

    Args:
        matrix: D, (..., m, n), float32 or float64.
        lambda_: weight of the sparse part; 1 / sqrt(max(m, n)) by default.
        tolerance: a matrix is done when |D - B - O|_F <= tolerance |D|_F; 1e-7 by default, in single precision
            1e-6.
        max_iterations: each takes one singular value thresholding.

    Returns:
        The `Separation`, background B and object O. mu starts at 1.25 / |D|_2 and grows by 1.5 up to 1e7 times
        that.

    Raises:
        ValueError: a shape, a dtype or a number that is not positive.
        torch.linalg.LinAlgError: `matrix` holds NaN or infinity.

    Source: Candes et al., "Robust principal component analysis?", 2011; Lin, Chen and Ma, "The augmented
    Lagrange multiplier method for exact recovery of corrupted low-rank matrices", 2010, algorithm 5.

    Example:
        >>> random = torch.Generator().manual_seed(0)
        >>> low_rank = torch.randn(60, 1, generator=random) @ torch.randn(1, 60, generator=random)
        >>> sparse = 5.0 * (torch.rand(60, 60, generator=random) < 0.05)
        >>> bool((pcp(low_rank + sparse).background - low_rank).norm() < 1e-4 * low_rank.norm())
        True
    """
    return _alternate(matrix, lowrank_sparse_step, lambda_, tolerance, max_iterations)


def pssv(
    matrix: Tensor,
    rank: int = 1,
    lambda_: float | None = None,
    tolerance: float | None = None,
    max_iterations: int = 1000,
) -> Separation:
    """Robust PCA with the partial sum of singular values, by ADMM.

        min sum over i > rank of s_i(B) + lambda |O|_1   such that   B + O = D

    The leading `rank` singular values are not penalised: the background keeps its full contrast. The other
    arguments, the result and the errors are those of `pcp`.

    Source: Oh et al., "Partial sum minimization of singular values in robust PCA", TPAMI 2016.

    Example:
        >>> separation = pssv(torch.ones(30, 40))
        >>> torch.allclose(separation.background, torch.ones(30, 40), atol=1e-5)
        True
    """
    update = partial(singular_value_threshold, partial=rank)
    return _alternate(matrix, _step_with(update), lambda_, tolerance, max_iterations)


def wnnm(
    matrix: Tensor,
    strength: float | None = None,
    tolerance: float | None = None,
    max_iterations: int = 1000,
) -> Separation:
    """Robust PCA with the weighted nuclear norm, by ADMM.

        min sum over i of w_i s_i(B) + |O|_1   such that   B + O = D,   w_i = C / (s_i(B) + epsilon)

    The reweighting is solved in closed form: a singular value s becomes (s - e + sqrt((s + e)^2 - 4 C / mu)) / 2,
    or 0 where the root is not real.

    Args:
        strength: C; sqrt(2) max(m, n) by default. The result depends on the scale of D: the tools give levels
            of 0 to 1.

    The other arguments, the result and the errors are those of `pcp`.

    Source: Gu et al., "Weighted nuclear norm minimization and its applications to low level vision", IJCV 2017,
    section 4 and corollary 1.

    Example:
        >>> separation = wnnm(torch.ones(30, 40))
        >>> torch.allclose(separation.background, torch.ones(30, 40), atol=1e-4)
        True
    """
    C = 2**0.5 * max(matrix.shape[-2:], default=0) if strength is None else strength
    return _alternate(matrix, _step_with(partial(_reweighted, C)), 1.0, tolerance, max_iterations)


def _reweighted(C: float, matrix: Tensor, level: Tensor) -> Tensor:
    """The proximal operator of level times the reweighted nuclear norm."""
    U, S, Vh = svd(matrix)
    epsilon = torch.finfo(S.dtype).eps
    root = (S + epsilon) ** 2 - 4 * C * level[..., None]
    shrunk = torch.where(root > 0, (S - epsilon + root.clamp_min(0).sqrt()) / 2, 0)
    return (U * shrunk.clamp_min(0)[..., None, :]) @ Vh


def _step_with(update: LowRankUpdate) -> Step:
    """The alternation of `lowrank_sparse_step` with another proximal operator for the low-rank part."""

    def step(D: Tensor, sparse: Tensor, dual: Tensor, mu: Tensor, lambda_: float) -> LowRankSparse:
        penalty = mu[..., None, None]
        low_rank = update(D - sparse + dual / penalty, 1 / mu)
        rest = D - low_rank + dual / penalty
        sparse = soft_threshold(rest, lambda_ / penalty)
        return LowRankSparse(low_rank, sparse, penalty * (rest - sparse))

    return step


def _alternate(
    matrix: Tensor, step: Step, lambda_: float | None, tolerance: float | None, max_iterations: int
) -> Separation:
    """The inexact augmented Lagrangian loop around `step`."""
    if matrix.ndim < 2 or not matrix.is_floating_point() or matrix.numel() == 0:
        raise ValueError(
            f"matrix must be real (..., m, n), not empty, got {matrix.dtype} of shape {tuple(matrix.shape)}"
        )
    weight = max(matrix.shape[-2:]) ** -0.5 if lambda_ is None else lambda_
    enough = (1e-7 if matrix.dtype == torch.float64 else 1e-6) if tolerance is None else tolerance
    if not (weight > 0 and enough > 0 and max_iterations > 0):
        raise ValueError(
            f"lambda_ {weight}, tolerance {enough} and max_iterations {max_iterations} must be positive"
        )
    D = matrix.flatten(0, -3) if matrix.ndim > 2 else matrix[None]
    spectral = svdvals(D)[:, 0]
    spectral = torch.where(spectral > 0, spectral, 1)
    mu = 1.25 / spectral
    dual_norm = torch.maximum(spectral, D.abs().amax((-2, -1)) / weight)
    start = _Iterate(
        D, torch.zeros_like(D), torch.zeros_like(D), D / dual_norm[:, None, None], mu, 1e7 * mu, spectral
    )

    def advance(x: _Iterate) -> tuple[_Iterate, Tensor]:
        parts = step(x.observation, x.sparse, x.dual, x.mu, weight)
        residual = relative_residual(x.observation, parts.low_rank, parts.sparse)
        mu = torch.minimum(1.5 * x.mu, x.mu_max)
        return _Iterate(x.observation, *parts, mu, x.mu_max, residual), residual <= enough

    final, steps = iterate(advance, start, max_iterations)
    batch = matrix.shape[:-2]
    return Separation(
        final.low_rank.reshape(matrix.shape),
        final.sparse.reshape(matrix.shape),
        steps.reshape(batch),
        final.residual.reshape(batch),
    )
