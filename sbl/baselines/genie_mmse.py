"""The estimate of one who knows the true support and variances, and what no other can do better than."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra import kron_vectors
from ..em.units import double
from ..estimate import Estimate
from ..problem import Problem, pose
from .answer import answer
from .gaussian import gaussian_posterior


@dataclass(frozen=True)
class GenieMMSE:
    """The least mean square error of x ~ N(0, diag(g)) given g, zero off the true support.

        x^ = diag(g) A^H (A diag(g) A^H + s2 I)^-1 y

    variances: g (..., N_1, ..., N_I), real; the batch shape broadcasts with y's. Only the columns of A on the
    support are formed. An unknown noise variance is that of the greatest likelihood.
    Where x is Gaussian given its support and variances no estimate has a smaller mean square error; where it is
    not, as the product of two Gaussian gains, it is the best linear one, and `bilinear_bound` says what holds.

    >>> A = [torch.eye(2), torch.eye(2)]
    >>> GenieMMSE(torch.tensor([[0.0, 1.0], [3.0, 0.0]]))(A, torch.ones(4), 1.0).mean
    tensor([[0.0000, 0.5000],
            [0.7500, 0.0000]])
    """

    variances: Tensor

    def __call__(
        self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None = None
    ) -> Estimate:
        """Estimate x (..., N_1, ..., N_I) and its variances from y (..., M).

        Raises:
            ValueError: an argument or the variances have a wrong shape, a NaN, or a negative variance; the message
                names it.
        """
        given = pose(factors, y, noise_variance)
        problem = double(given)
        g = self._fitting(problem)
        support = max((g > 0).sum(-1).tolist(), default=0)
        weights, index = g.topk(max(1, support), dim=-1)
        found = gaussian_posterior(
            [_columns(problem, index) * weights.sqrt().unsqueeze(-2)], problem.y, problem.noise_variance
        )
        root = [torch.diag_embed(weights.sqrt()).to(problem.y.dtype)]
        mean = torch.zeros_like(g).to(problem.y.dtype).scatter(-1, index, found.mean(root))
        variance = torch.zeros_like(g).scatter(-1, index, found.variance(root))
        return answer(given, mean, variance, found.noise)

    def _fitting(self, problem: Problem) -> Tensor:
        """The variances as (B, N) in double precision; ValueError where they do not fit."""
        g, lengths = self.variances, problem.lengths
        if g.is_complex() or g.shape[g.ndim - len(lengths) :] != lengths:
            raise ValueError(
                f"variances must be real (..., {', '.join(map(str, lengths))}), got {tuple(g.shape)}"
            )
        if not bool((torch.isfinite(g) & (g >= 0)).all()):
            raise ValueError("variances must be finite and not negative")
        try:
            g = g.expand(*problem.batch, *lengths)
        except RuntimeError:
            raise ValueError(
                f"variances of shape {tuple(g.shape)} do not broadcast to the batch {tuple(problem.batch)}"
            ) from None
        return g.reshape(len(problem.y), math.prod(lengths)).to(device=problem.y.device, dtype=torch.float64)


def _columns(problem: Problem, index: Tensor) -> Tensor:
    """The columns of A at flat indices (B, r): (B, M, r)."""
    B, r = index.shape
    columns = []
    for A in reversed(problem.factors):
        M, n = A.shape[-2:]
        place = (index % n).unsqueeze(-2).expand(B, M, r)
        columns.append(A.expand(B, -1, -1).gather(-1, place).mT.reshape(B * r, M))
        index = index // n
    return kron_vectors(columns[::-1]).unflatten(0, (B, r)).mT
