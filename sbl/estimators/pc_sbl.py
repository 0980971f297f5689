"""PC-SBL: pattern-coupled sparse Bayesian learning on the vectorised x."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from ..em.state import State
from ..problem import Problem
from .classic_sbl import ClassicSBL


@dataclass(frozen=True, kw_only=True)
class PCSBL(ClassicSBL):
    """Pattern-coupled SBL: the precision of x_n is alpha_n + coupling (alpha_{n-1} + alpha_{n+1}).

    With w_n = L_n + coupling (L_{n-1} + L_{n+1}): alpha_n = shape / (0.5 w_n + rate), from ones.
    Source: Fang, Shen, Li and Wang, IEEE Trans. Signal Processing 2015.

    Takes, returns and raises what `ExpectationMaximisation.__call__` says; `hyperparameters` is one (..., N).

    >>> import torch
    >>> y = torch.tensor([0.0, 3.0, 3.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    >>> PCSBL()([torch.eye(6, dtype=torch.float64)], y, 1e-3).mean.round(decimals=1)
    tensor([0., 3., 3., 0., 0., 0.], dtype=torch.float64)
    """

    pruning: float | tuple[float, ...] = 0.0
    shape: float = 0.5
    rate: float = 1e-4
    coupling: float = 0.9

    def initial(self, problem: Problem) -> tuple[Tensor, ...]:
        (ones,) = super().initial(problem)
        return (1 / self._with_neighbours(ones),)

    def m_step(self, second_moment: Tensor, state: State) -> tuple[Tensor, ...]:
        alpha = self.shape / (0.5 * self._with_neighbours(second_moment) + self.rate)
        return (1 / self._with_neighbours(alpha),)

    def _with_neighbours(self, x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1))
        return x + self.coupling * (padded[:, :-2] + padded[:, 2:])
