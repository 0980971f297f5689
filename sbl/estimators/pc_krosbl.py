"""PC-KroSBL: neighbouring entries of a factor share their prior variance."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...kernels import nonnegative_least_squares
from ..em.bound import BoundMinimisation, Sweeps
from ..em.compiled import Kind, Step
from ..em.state import Pruning, State
from ..em.sweep import alternate, coupled
from ..problem import Problem

OFFSET = 1e-5
DIVERGENCE = 1e3


@dataclass(frozen=True, kw_only=True)
class PCKroSBL(BoundMinimisation):
    """Pattern-coupled KroSBL, for supports that come in blocks within a factor (angle spread).

    The prior variances of a coupled factor are C_i s_i, C_i tridiagonal with 1 on the diagonal and `beta` beside
    it, on the entries that are not pruned. Like AM-KroSBL's, a sweep lowers a bound of the marginal cost, over
    s_i >= 0 (`sbl.em.sweep.bound_sweep`): the cost rises only where an entry is pruned.

    As published the variances are C_i g_i + 1e-5, and the M-step maps the right-hand side b of AM-KroSBL's to
    C_i argmin_{g >= 0} ||C_i g - b|| + 1e-5. Those sweeps can diverge: the offsets of entries at zero then carry
    all the weight. A sweep that would move kron g_i by more than 1000 times its norm is not taken.

    beta: coupling between neighbours. coupled: the coupled factors by position; None couples all.
    Source: He and Joseph, IEEE Trans. Signal Processing 2024, the block-sparse extension.

    Takes, returns and raises what `ExpectationMaximisation.__call__` says; `hyperparameters` holds the coupled
    variances, a `prior` the s_i that lie behind them. A negative `beta`, and a coupled
    position that no factor has, raise ValueError.

    >>> A = [torch.eye(4, dtype=torch.float64), torch.eye(2, dtype=torch.float64)]
    >>> y = torch.tensor([0.0, 0, 3, 0, 3, 0, 0, 0], dtype=torch.float64)
    >>> PCKroSBL(0.8)(A, y, 1e-6).mean.round(decimals=2)
    tensor([[0., 0.],
            [3., 0.],
            [3., 0.],
            [0., 0.]], dtype=torch.float64)
    """

    beta: float = field(default=0.8, kw_only=False)
    coupled: tuple[int, ...] | None = None
    pruning: float | tuple[float, ...] = 1e-2
    floor: float = 1e-4
    inner_tolerance: float = 1e-4
    sweeps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta < 0:
            raise ValueError(f"beta must not be negative, got {self.beta}")

    def initial(self, problem: Problem) -> tuple[Tensor, ...]:
        y = problem.y
        g = []
        for i, n in enumerate(problem.lengths):
            ones = torch.ones(y.shape[0], n, dtype=y.real.dtype, device=y.device)
            index = torch.arange(n, device=y.device).expand(y.shape[0], n)
            offset = OFFSET if self.as_published else 0.0
            g.append(self._coupling(index, ones).sum(-1) + offset if self._couples(i) else ones)
        return tuple(g)

    def begin(self, problem: Problem) -> State:
        count = len(problem.factors)
        if not set(self.coupled or ()) <= set(range(count)):
            raise ValueError(f"coupled must hold positions from 0 to {count - 1}, got {self.coupled}")
        state = super().begin(problem)
        if self.as_published:
            return state
        ones = tuple(map(torch.ones_like, state.g))
        return state._replace(sources=problem.prior or self.scaled(problem, ones))

    def pruned(self, state: State, pruning: Pruning) -> State:
        """Without what dropped entries lent to their neighbours."""
        state = super().pruned(state, pruning)
        if self.as_published:
            return state
        return state._replace(g=tuple(map(coupled, self.couplings(state), state.sources)))

    def couplings(self, state: State) -> list[Tensor | None]:
        kept = [(g > 0).to(g.dtype) for g in state.g]
        return [
            self._coupling(index, k) if self._couples(i) else None
            for i, (index, k) in enumerate(zip(state.positions, kept, strict=True))
        ]

    def inner(self) -> Sweeps:
        return Sweeps(self.sweeps, self.inner_tolerance, True)

    def m_step(self, second_moment: Tensor, state: State) -> tuple[Tensor, ...]:
        kept = [(g > 0).to(g.dtype) for g in state.g]
        coupling = [self._coupling(i, k) for i, k in zip(state.positions, kept, strict=True)]
        guesses = [_likely_positive(C.detach(), g.detach()) for C, g in zip(coupling, state.g, strict=True)]

        def couple(factor: int, b: Tensor) -> Tensor:
            if not self._couples(factor):
                return b
            C = coupling[factor]
            g = nonnegative_least_squares(C, b, guesses[factor])
            guesses[factor] = g.detach() > 0
            return (torch.bmm(C, g.unsqueeze(-1)).squeeze(-1) + OFFSET) * kept[factor]

        early = self.tolerance is not None
        return alternate(second_moment, state.g, *self.inner(), early, couple, DIVERGENCE)

    def compiled_step(self, factors: int) -> Step:
        coupled = tuple(self._couples(i) for i in range(factors))
        if self.as_published:
            return Step(Kind.ALTERNATING, *self.inner(), DIVERGENCE, coupled, self.beta, OFFSET)
        return Step(Kind.BOUND, *self.inner(), coupled=coupled, beta=self.beta)

    def _couples(self, factor: int) -> bool:
        return self.coupled is None or factor in self.coupled

    def _coupling(self, index: Tensor, kept: Tensor) -> Tensor:
        """C_i on the entries that are kept (1, not 0), and the identity on the others."""
        apart = (index.unsqueeze(-1) - index.unsqueeze(-2)).abs()
        beside = (apart == 1) * kept.unsqueeze(-1) * kept.unsqueeze(-2)
        return (apart == 0) + self.beta * beside


def _likely_positive(C: Tensor, coupled: Tensor) -> Tensor:
    """Where the g behind coupled = C g + offset was positive, offset aside."""
    g = torch.linalg.solve_ex(C, coupled.unsqueeze(-1))[0].squeeze(-1)
    return g > 1e-3 * g.amax(-1, keepdim=True)
