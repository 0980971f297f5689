"""Least squares without a prior."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels import kron_matvec
from ..algebra import squared_modulus
from ..em.units import double
from ..estimate import Estimate
from ..problem import pose
from .answer import answer


@dataclass(frozen=True)
class LeastSquares:
    """The least-squares solution of the least norm, x = (kron pinv(A_i)) y.

    An unknown noise variance is ||y - A x||^2 / (M - rank), zero where A has as many independent columns as rows.
    Source: Penrose, "On best approximate solutions of linear matrix equations", 1956.

    >>> A = [torch.tensor([[1.0, 1.0]]), torch.eye(2)]
    >>> LeastSquares()(A, torch.tensor([2.0, 4.0]), 0.1).mean
    tensor([[1., 2.],
            [1., 2.]])
    """

    def __call__(
        self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None = None
    ) -> Estimate:
        """Estimate x (..., N_1, ..., N_I) from y (..., M); the variance is zero.

        Raises:
            ValueError: an argument has a wrong shape, a NaN, or a negative variance; the message names it.
        """
        given = pose(factors, y, noise_variance)
        problem = double(given)
        x = kron_matvec([torch.linalg.pinv(A) for A in problem.factors], problem.y)
        noise = problem.noise_variance
        if noise is None:
            ranks = torch.stack([torch.linalg.matrix_rank(A).expand(len(x)) for A in problem.factors])
            free = problem.y.shape[-1] - ranks.prod(0)
            residual = squared_modulus(problem.y - kron_matvec(list(problem.factors), x)).sum(-1)
            noise = torch.where(free > 0, residual / free.clamp(min=1), 0)
        return answer(given, x, torch.zeros_like(x.real), noise)
