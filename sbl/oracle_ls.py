"""Least squares given the true support."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sbl.estimate import Estimate
from sbl.least_squares import kronecker_least_squares, point_estimate
from sbl.problem import pose


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
            ValueError: an argument has a wrong shape, a NaN, or a negative variance; the message names it.
        """
        problem = pose(factors, y, noise_variance)
        lengths = [kept.shape[-1] for kept in self.support]
        if lengths != list(problem.lengths):
            raise ValueError(
                f"support has {lengths} entries, the factors have {list(problem.lengths)} columns"
            )
        B = problem.y.shape[0]
        chosen = [
            s.expand(*problem.batch, n).reshape(B, n) for s, n in zip(self.support, lengths, strict=True)
        ]
        x = kronecker_least_squares(problem.factors, chosen, problem.y)
        ones = torch.ones(B, dtype=torch.long, device=y.device)
        return point_estimate(problem, x, ones, ones.bool())
