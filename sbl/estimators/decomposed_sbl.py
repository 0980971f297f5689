"""DecomposedSBL: one small off-grid problem a factor in place of one large problem."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels import kron_matvec, leading_singular_triplet
from ..algebra import kron_vectors, squared_modulus
from ..em.off_grid_sbl import OffGrid, off_grid_sbl
from ..em.units import double, unit_power
from ..estimate import Ended, Estimate
from ..problem import Problem, pose

# Mean squares below this share of y's are rounding, not noise.
LEAST_NOISE = 1e-12
# A relative change of the atoms' variances in the last iteration below which they have settled.
SETTLED_CHANGE = 1e-2


class Angles(NamedTuple):
    """The atoms of one factor, the strongest first; every field is (..., P), P = refinement N.

    amplitude: |z| of each atom, of a factor of unit norm; many are next to zero.
    cosine: where it lies, in [-1, 1), for columns on the uniform grid of `sbl.systems.angular_grid`, and its
    standard deviation: the Cramer-Rao bound beside the other atoms, at most half of the atom's share of the grid;
    infinite where the columns do not tell what lies between them, as those of 256 elements, seen by few patterns,
    on 180 points.
    degrees: the same as an angle from the array's axis, in [0, 180].
    """

    amplitude: Tensor
    cosine: Tensor
    cosine_spread: Tensor
    degrees: Tensor
    degrees_spread: Tensor


@dataclass(frozen=True)
class DecomposedEstimate(Estimate):
    """An `Estimate` with the angles that it consists of, those of each factor."""

    angles: tuple[Angles, ...] = ()


@dataclass(frozen=True, kw_only=True)
class DecomposedSBL:
    """Off-grid sparse Bayesian learning of x = x_1 kron ... kron x_I, factor by factor.

    Without noise y is then the Kronecker product of y_i = A_i x_i. The best rank-one approximation of y, read as
    an array M_1 x ... x M_I, gives lambda u_1 kron ... kron u_I with |u_i| = 1 (the leading left singular vectors
    of its unfoldings, then `sweeps` alternating passes); each u_i, with the noise variance s2 / lambda^2, is a
    problem of its own, which `off_grid_sbl` solves for atoms between the columns of A_i. The mean puts them on
    the grid by trigonometric interpolation: A_i x_i is exactly the sum of the off-grid atoms.

    It needs complex factors whose columns are a function on a uniform grid around a circle, as steering vectors
    are, and an x of rank one, as of a channel of one path each hop; an x of a higher rank leaves a residual, which
    `residual_to_noise` shows. A grid with no more points than the array has elements does not tell what lies
    between them. It computes in double precision.
    refinement: atoms a grid step, each of which stays within half of its share of it.
    Source: after He and Joseph, "Efficient Off-Grid Bayesian Parameter Estimation for Kronecker-Structured
    Signals", arXiv 2412.00310, 2024.

    >>> from unfoldkit.sbl.systems import angular_grid, steering_vectors
    >>> A = steering_vectors(angular_grid(9), 8).mT
    >>> a, b = (steering_vectors(torch.tensor(c).double(), 8) for c in (0.123, -0.71))
    >>> y = 5 * torch.kron(a, b)
    >>> estimate = DecomposedSBL()([A, A], y, 1e-6)
    >>> bool((torch.kron(A, A) @ estimate.mean.flatten() - y).norm() < 1e-2 * y.norm())
    True
    >>> [round(float(angles.cosine[0]), 2) for angles in estimate.angles]
    [0.12, -0.71]
    """

    refinement: int = 2
    iterations: int = 20
    sweeps: int = 10

    def __post_init__(self) -> None:
        for name, least in (("refinement", 1), ("iterations", 1), ("sweeps", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def __call__(
        self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None = None
    ) -> DecomposedEstimate:
        """Estimate x (..., N_1, ..., N_I) and its angles from y (..., M); the variance is zero.

        Raises:
            ValueError: an argument has a wrong shape, a NaN, or a negative variance, is real, or a factor has no
                more columns than rows; the message names it.
        """
        given = pose(factors, y, noise_variance)
        if not y.is_complex():
            raise ValueError(f"factors and y must be complex for atoms off the grid, got {y.dtype}")
        for i, A in enumerate(given.factors):
            if A.shape[-1] <= A.shape[-2]:
                raise ValueError(
                    f"factors[{i}] has {A.shape[-2]} rows on a grid of {A.shape[-1]} points; angles between grid "
                    "points need more points than rows"
                )
        problem, amplitude = unit_power(double(given))
        scale, units = rank_one(problem.y.unflatten(-1, [A.shape[-2] for A in problem.factors]), self.sweeps)
        s2, M = problem.noise_variance, problem.y.shape[-1]
        if s2 is None:
            s2 = 1 - squared_modulus(scale) / M
        s2 = s2.clamp(min=LEAST_NOISE)
        share = s2 / squared_modulus(scale)
        parts = [
            off_grid_sbl(A, u, share, self.refinement, self.iterations)
            for A, u in zip(problem.factors, units, strict=True)
        ]
        x = scale.unsqueeze(-1) * kron_vectors([part.on_grid for part in parts])
        residual = squared_modulus(problem.y - kron_matvec(list(problem.factors), x)).mean(-1)
        settled = torch.stack([part.change for part in parts]).amax(0) <= SETTLED_CHANGE
        ended = torch.where(settled, Ended.SETTLED, Ended.ITERATIONS).masked_fill(
            amplitude == 0, Ended.PRUNED
        )
        mean = (x * amplitude.unsqueeze(-1)).to(y.dtype)
        noise = s2 * amplitude.square() if given.noise_variance is None else given.noise_variance
        batch, real = given.batch, y.real.dtype
        return DecomposedEstimate(
            mean=mean.reshape(*batch, *given.lengths),
            variance=torch.zeros_like(mean.real).reshape(*batch, *given.lengths),
            hyperparameters=(squared_modulus(mean).reshape(*batch, mean.shape[-1]),),
            noise_variance=noise.to(real).reshape(batch),
            iterations=torch.full(batch, self.iterations, device=y.device),
            ended=ended.reshape(batch),
            residual_to_noise=((amplitude > 0) * residual / s2).to(real).reshape(batch),
            angles=tuple(_angles(part, amplitude > 0, given) for part in parts),
        )


def _angles(atoms: OffGrid, heard: Tensor, given: Problem) -> Angles:
    """The strongest first, with amplitudes of zero where nothing was heard, in the precision of the problem."""
    step = 2 / atoms.on_grid.shape[-1]
    amplitude, order = (atoms.amplitudes.abs() * heard.unsqueeze(-1)).sort(
        dim=-1, descending=True, stable=True
    )
    cosine, spread = (-1 + step * atoms.positions).gather(-1, order), (step * atoms.spread).gather(-1, order)
    low, middle, high = (torch.acos((cosine + s * spread).clamp(-1, 1)).rad2deg() for s in (1, 0, -1))
    fields = (amplitude, cosine, spread, middle, (high - low) / 2)
    return Angles(*(x.to(given.y.real.dtype).reshape(*given.batch, x.shape[-1]) for x in fields))


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
