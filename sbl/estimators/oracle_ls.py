"""Least squares given the true support."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..em.units import equalise
from ..estimate import Ended, Estimate
from ..least_squares import kronecker_least_squares, point_estimate
from ..problem import pose


@dataclass(frozen=True)
class OracleLS:
    """Least squares on a known Kronecker support: x = (kron pinv(A_i restricted to the support)) y.

    support: (..., N_i) booleans for each factor; the batch shapes broadcast with y's.
    The bound that the comparison of He and Joseph, IEEE Trans. Signal Processing 2024, draws as OLS.

    >>> A = [torch.eye(2), torch.eye(3)]
    >>> support = [torch.tensor([False, True]), torch.tensor([True, True, False])]
    >>> OracleLS(support)(A, torch.arange(6.0), 0.1).mean
    tensor([[0., 0., 0.],
            [3., 4., 0.]])
    """

    support: Sequence[Tensor]

    def __call__(
        self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None = None
    ) -> Estimate:
        """Estimate x (..., N_1, ..., N_I) from y (..., M); the variance is zero.

        Raises:
            ValueError: an argument or the support has a wrong shape or type, a NaN, or a negative variance;
                the message names it.
        """
        problem, units = equalise(pose(factors, y, noise_variance), in_double=False)
        lengths = [kept.shape[-1] if kept.ndim else 0 for kept in self.support]
        if lengths != list(problem.lengths):
            raise ValueError(
                f"support has {lengths} entries, the factors have {list(problem.lengths)} columns"
            )
        B = problem.y.shape[0]
        chosen = [_flat(kept, problem.batch) for kept in self.support]
        x = kronecker_least_squares(problem.factors, chosen, problem.y)
        ones = torch.ones(B, dtype=torch.long, device=y.device)
        unknowns = torch.stack([kept.sum(-1) for kept in chosen]).prod(0)
        return point_estimate(problem, x, ones, Ended.SETTLED * ones, unknowns, units)


def _flat(kept: Tensor, batch: torch.Size) -> Tensor:
    """(B, N_i) booleans."""
    if kept.dtype != torch.bool:
        raise ValueError(f"support must hold booleans, got {kept.dtype}")
    try:
        return kept.expand(*batch, kept.shape[-1]).reshape(-1, kept.shape[-1])
    except RuntimeError:
        raise ValueError(
            f"support of shape {tuple(kept.shape)} does not broadcast to the batch {tuple(batch)}"
        ) from None
