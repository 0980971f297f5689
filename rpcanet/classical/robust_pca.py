"""Robust principal component analysis of matrices: the convex one, and two other rank penalties."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels import LowRankSparse, singular_value_threshold, soft_threshold, svd, svdvals
from .separation import Separation, iterate, observed, relative_residual
from .shrinkage import NEAR, shrink

LowRankUpdate = Callable[[Tensor, Tensor], Tensor]

RELAXATION = 1.6  # of pcp's steps while it balances
BALANCE, GROWTH = (
    0.05,
    1.1,
)  # its penalty follows the ratio of both residuals to this one, by this factor a step
SETTLED = 1e-5  # residual, of B and the O that it was made for, from which on the penalty only grows
FINISH = 10.0  # by this factor a step
RANGE = 1e7  # of the penalty


class _Problem(NamedTuple):
    """What is common to the penalties: matrices of entries near one, (batch, m, n), and their numbers."""

    observation: Tensor
    scale: Tensor
    weight: Tensor  # lambda, and 0 where nothing is observed: the sparse part there is free
    observed: Tensor
    tolerance: float


def pcp(
    matrix: Tensor,
    lambda_: float | None = None,
    tolerance: float | None = None,
    max_iterations: int = 1000,
    *,
    mask: Tensor | None = None,
) -> Separation:
    """Principal component pursuit.

        min |B|_* + lambda |O|_1   such that   B + O = D   where mask is true

    By the alternating direction method of multipliers, relaxed by 1.6. The penalty mu starts at |D|_0 / (4 |D|_1)
    and follows the ratio of the primal to the dual residual, |D - B - O'| / |D| to |O' - O| / |Y / mu|, by a tenth
    an iteration, so that they stay near 1 to 20. Once |D - B - O|, of B and the O that it was computed from, is
    below 1e-5 |D|, both residuals are that small: B, O and the dual are near the minimum, and mu grows by 10 an
    iteration until B + O = D holds as well. The objective then is within some 1e-6 of the minimum.

    Args:
        matrix: D, (..., m, n), float32 or float64, of any scale.
        lambda_: weight of the sparse part; 1 / sqrt(max(m, n) share) by default, share the observed part of D.
        tolerance: a matrix is done when |D - B - O|_F <= tolerance |D|_F; 1e-7 by default, in single precision
            1e-6. A tolerance above 1e-5 also takes the place of that.
        max_iterations: each takes one eigendecomposition of the Gram matrix of the shorter side.
        mask: booleans that broadcast to D, true where it is observed; elsewhere D may be anything, NaN too.

    Returns:
        The `Separation`, background B and object O. Where D is not observed B is what completes it and O is 0.

    Raises:
        ValueError: a shape, a dtype or a number that is not positive.
        torch.linalg.LinAlgError: `matrix` holds NaN or infinity where it is observed.

    Source: Candes et al., "Robust principal component analysis?", 2011, theorem 1.2 for missing entries; Boyd et
    al., "Distributed optimization and statistical learning via the alternating direction method of multipliers",
    2011, sections 3.4.1 and 3.4.3; the growth at the end: Lin, Chen and Ma, "The augmented Lagrange multiplier
    method for exact recovery of corrupted low-rank matrices", 2010, algorithm 5.

    Example:
        >>> random = torch.Generator().manual_seed(0)
        >>> low_rank = torch.randn(60, 1, generator=random) @ torch.randn(1, 60, generator=random)
        >>> sparse = 5.0 * (torch.rand(60, 60, generator=random) < 0.05)
        >>> bool((pcp(low_rank + sparse).background - low_rank).norm() < 1e-4 * low_rank.norm())
        True
    """
    problem = _problem(matrix, lambda_, tolerance, max_iterations, mask)
    wide = matrix.shape[-2] < matrix.shape[-1]
    D, weight = (x.mT.contiguous() if wide else x for x in (problem.observation, problem.weight))
    size, settled_at = _norm(D), max(SETTLED, problem.tolerance)
    total = D.abs().sum((1, 2))
    mu = problem.observed.sum((1, 2)).clamp_min(1) / (4 * torch.where(total > 0, total, 1))
    zero = torch.zeros_like(D)
    weight = weight.expand(len(D), *weight.shape[1:])
    start = _Pursuit(D, weight, zero, zero, zero, mu, RANGE * mu, mu < 0, size, mu)
    final, steps = iterate(partial(_pursue, settled_at, problem.tolerance), start, max_iterations)
    low_rank, sparse = (part.mT if wide else part for part in (final.low_rank, final.sparse))
    return _separation(matrix, problem, low_rank, sparse, steps, final.residual)


class _Pursuit(NamedTuple):
    observation: Tensor
    weight: Tensor
    low_rank: Tensor
    sparse: Tensor
    dual: Tensor  # over mu
    mu: Tensor
    mu_max: Tensor
    settled: Tensor
    size: Tensor
    residual: Tensor


def _pursue(settled_at: float, tolerance: float, x: _Pursuit) -> tuple[_Pursuit, Tensor]:
    """One iteration of `pcp`, and which matrices are done."""
    low_rank = shrink(x.observation - x.sparse + x.dual, 1 / x.mu, x.residual < NEAR)
    rest = x.observation - low_rank
    gap = rest - x.sparse
    settled = x.settled | (_norm(gap) <= settled_at * x.size)
    step = torch.where(settled, 1, RELAXATION).to(gap.dtype)
    moved = torch.addcmul(x.sparse + x.dual, step[:, None, None], gap)
    level = x.weight / x.mu[:, None, None]
    dual = moved.clamp(-level, level)
    sparse = moved - dual
    primal, change = _norm(rest - sparse), _norm(sparse - x.sparse)
    short = primal * _norm(dual) > BALANCE * change * x.size
    factor = torch.where(settled, FINISH, torch.where(short, GROWTH, 1 / GROWTH)).to(gap.dtype)
    mu = torch.minimum(factor * x.mu, x.mu_max)
    dual = dual * (x.mu / mu)[:, None, None]
    residual = primal / torch.where(x.size > 0, x.size, 1)
    state = _Pursuit(x.observation, x.weight, low_rank, sparse, dual, mu, x.mu_max, settled, x.size, residual)
    return state, settled & (residual <= tolerance)


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=(1, 2))


def pssv(
    matrix: Tensor,
    rank: int = 1,
    lambda_: float | None = None,
    tolerance: float | None = None,
    max_iterations: int = 1000,
    *,
    mask: Tensor | None = None,
) -> Separation:
    """Robust PCA with the partial sum of singular values, by the inexact augmented Lagrangian method.

        min sum over i > rank of s_i(B) + lambda |O|_1   such that   B + O = D

    The leading `rank` singular values are not penalised: the background keeps its full contrast. mu starts at
    1.25 / |D|_2 and grows by 1.5 up to 1e7 times that: the penalty is not convex, and where this ends depends on
    it. The other arguments, the result and the errors are those of `pcp`.

    Source: Oh et al., "Partial sum minimization of singular values in robust PCA", TPAMI 2016.

    Example:
        >>> separation = pssv(torch.ones(30, 40))
        >>> torch.allclose(separation.background, torch.ones(30, 40), atol=1e-5)
        True
    """
    problem = _problem(matrix, lambda_, tolerance, max_iterations, mask)
    return _alternate(matrix, problem, partial(singular_value_threshold, partial=rank), max_iterations)


def wnnm(
    matrix: Tensor,
    strength: float | None = None,
    tolerance: float | None = None,
    max_iterations: int = 1000,
    *,
    mask: Tensor | None = None,
) -> Separation:
    """Robust PCA with the weighted nuclear norm, by the method of `pssv`.

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
    problem = _problem(matrix, 1.0, tolerance, max_iterations, mask)
    C = 2**0.5 * max(matrix.shape[-2:]) if strength is None else strength
    if not C > 0:
        raise ValueError(f"strength must be positive, got {C}")
    return _alternate(matrix, problem, _reweighted, max_iterations, C / problem.scale[:, 0, 0])


def _reweighted(matrix: Tensor, level: Tensor) -> Tensor:
    """The proximal operator of level / C times the reweighted nuclear norm."""
    U, S, Vh = svd(matrix)
    epsilon = torch.finfo(S.dtype).eps
    root = (S + epsilon) ** 2 - 4 * level[..., None]
    shrunk = torch.where(root > 0, (S - epsilon + root.clamp_min(0).sqrt()) / 2, 0)
    return (U * shrunk.clamp_min(0)[..., None, :]) @ Vh


class _Iterate(NamedTuple):
    observation: Tensor
    weight: Tensor
    low_rank: Tensor
    sparse: Tensor
    dual: Tensor
    strength: Tensor
    mu: Tensor
    mu_max: Tensor
    residual: Tensor


def _alternate(
    matrix: Tensor,
    problem: _Problem,
    update: LowRankUpdate,
    max_iterations: int,
    strength: Tensor | None = None,
) -> Separation:
    """The inexact augmented Lagrangian loop around `update`, the proximal operator of a rank penalty.

    strength: of that penalty, (batch,); one by default.
    """
    D = problem.observation
    spectral = svdvals(D)[:, 0]
    spectral = torch.where(spectral > 0, spectral, 1)
    mu = 1.25 / spectral
    weight = problem.weight.expand(len(D), *problem.weight.shape[1:])
    lambda_ = weight.amax((1, 2))
    dual_norm = torch.maximum(spectral, D.abs().amax((1, 2)) / torch.where(lambda_ > 0, lambda_, 1))
    zero, dual = torch.zeros_like(D), D / dual_norm[:, None, None]
    strength = torch.ones_like(mu) if strength is None else strength
    start = _Iterate(D, weight, zero, zero, dual, strength, mu, 1e7 * mu, spectral)

    def advance(x: _Iterate) -> tuple[_Iterate, Tensor]:
        parts = _step(x, update)
        residual = relative_residual(x.observation, parts.low_rank, parts.sparse)
        mu = torch.minimum(1.5 * x.mu, x.mu_max)
        state = _Iterate(x.observation, x.weight, *parts, x.strength, mu, x.mu_max, residual)
        return state, residual <= problem.tolerance

    final, steps = iterate(advance, start, max_iterations)
    return _separation(matrix, problem, final.low_rank, final.sparse, steps, final.residual)


def _step(x: _Iterate, update: LowRankUpdate) -> LowRankSparse:
    """The alternation of `lowrank_sparse_step` with another proximal operator, and a weight of each entry."""
    mu = x.mu[:, None, None]
    low_rank = update(x.observation - x.sparse + x.dual / mu, x.strength / x.mu)
    rest = x.observation - low_rank + x.dual / mu
    sparse = soft_threshold(rest, x.weight / mu)
    return LowRankSparse(low_rank, sparse, mu * (rest - sparse))


def _problem(
    matrix: Tensor, lambda_: float | None, tolerance: float | None, max_iterations: int, mask: Tensor | None
) -> _Problem:
    """D divided by the power of two below its largest entry, once every argument is known to fit."""
    if matrix.ndim < 2 or not matrix.is_floating_point() or matrix.numel() == 0:
        raise ValueError(
            f"matrix must be real (..., m, n), not empty, got {matrix.dtype} of shape {tuple(matrix.shape)}"
        )
    if matrix.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"matrix must be of single or double precision, got {matrix.dtype}")
    enough = (1e-7 if matrix.dtype == torch.float64 else 1e-6) if tolerance is None else tolerance
    if not ((lambda_ is None or lambda_ > 0) and enough > 0 and max_iterations > 0):
        raise ValueError(
            f"lambda_ {lambda_}, tolerance {enough} and max_iterations {max_iterations} must be positive"
        )
    there = observed("matrix", matrix, mask).reshape(-1, *matrix.shape[-2:])
    D = torch.where(there, matrix.reshape(there.shape), 0)
    scale = _power_of_two(D.detach().abs().amax((1, 2), keepdim=True))
    if lambda_ is None:
        share = there.to(D.dtype).mean((1, 2), keepdim=True)
        weight = (max(matrix.shape[-2:]) * torch.where(share > 0, share, 1)).rsqrt()
    else:
        weight = torch.full_like(scale, lambda_)
    return _Problem(D / scale, scale, weight if mask is None else weight * there, there, enough)


def _power_of_two(largest: Tensor) -> Tensor:
    """The one just below, by which a division is exact; 1 for 0."""
    mantissa, _ = torch.frexp(largest)
    return torch.where(largest > 0, largest / torch.where(mantissa > 0, 2 * mantissa, 1), 1)


def _separation(
    matrix: Tensor, problem: _Problem, low_rank: Tensor, sparse: Tensor, steps: Tensor, residual: Tensor
) -> Separation:
    batch = matrix.shape[:-2]
    return Separation(
        (problem.scale * low_rank).reshape(matrix.shape),
        torch.where(problem.observed, problem.scale * sparse, 0).reshape(matrix.shape),
        steps.reshape(batch),
        residual.reshape(batch),
    )
