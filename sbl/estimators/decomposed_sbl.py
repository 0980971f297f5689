"""DecomposedSBL: one small off-grid problem a factor in place of one large problem."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels import leading_singular_triplet
from ..algebra import kron_vectors, squared_modulus
from ..em.off_grid_sbl import off_grid_sbl
from ..estimate import Ended, Estimate
from ..least_squares import point_estimate
from ..problem import pose

# Mean squares below this share of y's are rounding, not noise.
LEAST_NOISE = 1e-12


@dataclass(frozen=True, kw_only=True)
class DecomposedSBL:
    """Off-grid sparse Bayesian learning of x = x_1 kron ... kron x_I, factor by factor.

    Without noise y is then the Kronecker product of y_i = A_i x_i. The best rank-one approximation of y, read as
    an array M_1 x ... x M_I, gives lambda u_1 kron ... kron u_I with |u_i| = 1 (the leading left singular vectors
    of its unfoldings, then `sweeps` alternating passes); each u_i, with the noise variance s2 / lambda^2, is a
    problem of its own, which `off_grid_sbl` solves for atoms between the columns of A_i. The mean puts them on
    the grid by trigonometric interpolation: A_i x_i is exactly the sum of the off-grid atoms.

    It needs complex factors whose columns are a function on a uniform grid around a circle, as steering vectors
    are, and an x of rank one, as of a channel of one path each hop; an x of a higher rank leaves a residual.
    refinement: atoms a grid step, each of which stays within half of its share of it.
    Source: after He and Joseph, "Efficient Off-Grid Bayesian Parameter Estimation for Kronecker-Structured
    Signals", arXiv 2412.00310, 2024.

    Takes, returns and raises what `ExpectationMaximisation.__call__` says; the variance is zero, and real factors
    raise ValueError.

    >>> from unfoldkit.sbl.systems import angular_grid, steering_vectors
    >>> A = steering_vectors(angular_grid(9), 8).mT
    >>> a, b = (steering_vectors(torch.tensor(c).double(), 8) for c in (0.123, -0.71))
    >>> y = 5 * torch.kron(a, b)
    >>> x = DecomposedSBL()([A, A], y, 1e-6).mean.flatten()
    >>> bool((torch.kron(A, A) @ x - y).norm() < 1e-2 * y.norm())
    True
    """

    refinement: int = 2
    iterations: int = 20
    sweeps: int = 10

    def __call__(
        self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None = None
    ) -> Estimate:
        """Estimate x (..., N_1, ..., N_I) from y (..., M)."""
        problem = pose(factors, y, noise_variance)
        if not y.is_complex():
            raise ValueError(f"factors and y must be complex for atoms off the grid, got {y.dtype}")
        rows = [A.shape[-2] for A in problem.factors]
        scale, units = rank_one(problem.y.unflatten(-1, rows), self.sweeps)
        s2 = problem.noise_variance
        power = squared_modulus(problem.y).mean(-1)
        if s2 is None:
            s2 = power - squared_modulus(scale) / problem.y.shape[-1]
        s2 = torch.maximum(s2, LEAST_NOISE * power)
        share = s2 / squared_modulus(scale)
        parts = [
            off_grid_sbl(A, u, share, self.refinement, self.iterations).on_grid
            for A, u in zip(problem.factors, units, strict=True)
        ]
        x = scale.unsqueeze(-1) * kron_vectors(parts)
        count = torch.full_like(s2, self.iterations, dtype=torch.long)
        return point_estimate(problem, x, count, torch.full_like(count, Ended.ITERATIONS))


def rank_one(y: Tensor, sweeps: int) -> tuple[Tensor, list[Tensor]]:
    """lambda (B,) and unit vectors u_i (B, M_i) with lambda u_1 kron ... kron u_I close to y (B, M_1, ..., M_I).

    >>> scale, (u, v) = rank_one(torch.tensor([[[3.0, 0.0], [0.0, 1.0]]]), 2)
    >>> scale, u, v
    (tensor([3.]), tensor([[1., 0.]]), tensor([[1., 0.]]))
    """
    axes = range(1, y.ndim)
    units = [leading_singular_triplet(y.movedim(axis, 1).flatten(2)).u for axis in axes]
    for _ in range(sweeps):
        for i in range(len(units)):
            part = _contract(y, units, i)
            units[i] = part / torch.linalg.vector_norm(part, dim=-1, keepdim=True).clamp(min=1e-30)
    return (_contract(y, units, 0) * units[0].conj()).sum(-1), units


def _contract(y: Tensor, units: list[Tensor], kept: int) -> Tensor:
    """y with every axis but one contracted with that axis' conjugate unit vector: (B, M_kept)."""
    part = y.movedim(kept + 1, 1)
    for u in reversed(units[:kept] + units[kept + 1 :]):
        part = (part @ u.conj().reshape(len(u), *[1] * (part.ndim - 3), u.shape[-1], 1)).squeeze(-1)
    return part
