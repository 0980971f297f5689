"""Bookkeeping of the EM loop: members of a batch leave it at different iterations."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sbl.estimate import spread
from sbl.state import State


class History:
    """Cost and change of every iteration of a flat batch; NaN for members that have stopped."""

    def __init__(self, y: Tensor, iterations: int) -> None:
        self.blank = torch.full(y.shape[:1], math.nan, dtype=y.real.dtype, device=y.device)
        self.iterations = iterations
        self.cost: list[Tensor] = []
        self.change: list[Tensor] = []

    def add(self, members: Tensor, cost: Tensor, change: Tensor) -> None:
        self.cost.append(self.blank.index_put((members,), cost))
        self.change.append(self.blank.index_put((members,), change.to(self.blank.dtype)))

    def table(self, rows: list[Tensor]) -> Tensor:
        """(B, iterations)."""
        return torch.stack(rows + [self.blank] * (self.iterations - len(rows)), -1)


class Run(NamedTuple):
    """Where the loop ended for some members of a flat batch; g has its full length."""

    members: Tensor
    g: tuple[Tensor, ...]
    noise_variance: Tensor
    iterations: Tensor
    converged: Tensor
    cost: Tensor | None = None
    change: Tensor | None = None

    @classmethod
    def of(
        cls, state: State, lengths: tuple[int, ...], members: Tensor, iterations: int, converged: bool
    ) -> "Run":
        g = tuple(spread(v, (i,), (n,)) for v, i, n in zip(state.g, state.positions, lengths, strict=True))
        count = torch.full_like(members, iterations)
        return cls(
            members, g, state.noise_variance, count, torch.full_like(members, converged, dtype=torch.bool)
        )

    def in_order(self, history: History | None) -> "Run":
        """Members in the order of the batch, with their history."""
        order = self.members.argsort()
        g = tuple(v[order] for v in self.g)
        run = Run(
            self.members[order], g, self.noise_variance[order], self.iterations[order], self.converged[order]
        )
        if history is None:
            return run
        return run._replace(cost=history.table(history.cost), change=history.table(history.change))


def join(runs: list[Run]) -> Run:
    """One run of all members."""
    if len(runs) == 1:
        return runs[0]
    first = runs[0]
    g = tuple(torch.cat(parts) for parts in zip(*(run.g for run in runs), strict=True))

    def together(field: str) -> Tensor:
        return torch.cat([getattr(run, field) for run in runs])

    recorded = first.cost is not None
    return Run(
        together("members"),
        g,
        together("noise_variance"),
        together("iterations"),
        together("converged"),
        together("cost") if recorded else None,
        together("change") if recorded else None,
    )
