"""KSBL: the earlier Kronecker method, one alternating sweep an iteration."""

from dataclasses import dataclass

from torch import Tensor

from ..em.bound import BoundMinimisation, Sweeps
from ..em.compiled import Kind, Step
from ..em.state import State
from ..em.sweep import sweep


@dataclass(frozen=True, kw_only=True)
class KSBL(BoundMinimisation):
    """Kronecker-structured SBL with a single sweep of AM-KroSBL's M-step.

    As published, without normalisation,

    g_i[n] = (1 / prod_{j != i} N_j) sum over the other modes of L / prod_{j != i} g_j, each factor once.
    Source: the KSBL comparison method of He and Joseph, IEEE Trans. Signal Processing 2024.

    Takes, returns and raises what `ExpectationMaximisation.__call__` says.

    >>> import torch
    >>> A = [torch.eye(2, dtype=torch.float64), torch.eye(3, dtype=torch.float64)]
    >>> y = torch.tensor([0.0, 0.0, 0.0, 0.0, 5.0, 0.0], dtype=torch.float64)
    >>> KSBL()(A, y, 1e-6).mean.round(decimals=3)
    tensor([[0., 0., 0.],
            [0., 5., 0.]], dtype=torch.float64)
    """

    pruning: float | tuple[float, ...] = 1e-2

    def m_step(self, second_moment: Tensor, state: State) -> tuple[Tensor, ...]:
        return sweep(second_moment, state.g)

    def inner(self) -> Sweeps:
        return Sweeps(1, 0.0, True)

    def compiled_step(self, factors: int) -> Step:
        return Step(Kind.ONE_SWEEP if self.as_published else Kind.BOUND, *self.inner())
