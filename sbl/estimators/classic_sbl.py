"""Classic sparse Bayesian learning: no structure in the prior."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..em.loop import ExpectationMaximisation, Posterior
from ..em.state import State
from ..em.unstructured_posterior import unstructured_posterior
from ..problem import Problem


@dataclass(frozen=True, kw_only=True)
class ClassicSBL(ExpectationMaximisation):
    """SBL with one prior variance for each entry of x: g = variance + |mean|^2, from ones.

    An M x M Cholesky factorisation an iteration, M = prod M_i; N x N is never formed.
    Source: Wipf and Rao, IEEE Trans. Signal Processing 2004, the EM updates.

    Takes, returns and raises what `ExpectationMaximisation.__call__` says; `hyperparameters` is one (..., N).

    >>> A = [torch.eye(2, dtype=torch.float64), torch.eye(3, dtype=torch.float64)]
    >>> y = torch.tensor([0.0, 0.0, 0.0, 0.0, 5.0, 0.0], dtype=torch.float64)
    >>> ClassicSBL()(A, y, 1e-6).mean.round(decimals=3)
    tensor([[0., 0., 0.],
            [0., 5., 0.]], dtype=torch.float64)
    """

    pruning: float | tuple[float, ...] = 1e-3
    structured: ClassVar[bool] = False

    def initial(self, problem: Problem) -> tuple[Tensor, ...]:
        y = problem.y
        return (
            torch.ones(y.shape[0], torch.Size(problem.lengths).numel(), dtype=y.real.dtype, device=y.device),
        )

    def posterior(self, state: State) -> Posterior:
        return unstructured_posterior(state)

    def m_step(self, second_moment: Tensor, state: State) -> tuple[Tensor, ...]:
        return (second_moment,)
