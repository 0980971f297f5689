"""Bookkeeping of the EM loop: members of a batch leave it at different iterations."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ..estimate import spread
from .state import State


class Path(NamedTuple):
    """What every iteration of a flat batch of B problems did; NaN after a member has stopped.

    cost, change, noise_variance: (B, iterations).  g: (B, iterations, n_i) each.
    """

    cost: Tensor
    change: Tensor
    noise_variance: Tensor
    g: tuple[Tensor, ...]


class Moments(NamedTuple):
    """Of the posterior: mean and variance (B, N_1 ... N_I), and ||y - A mean||^2 (B,)."""

    mean: Tensor
    variance: Tensor
    residual: Tensor


class History:
    """Gathers the `Path` of a flat batch."""

    def __init__(self, y: Tensor, iterations: int) -> None:
        self.blank = torch.full(y.shape[:1], math.nan, dtype=y.real.dtype, device=y.device)
        self.iterations = iterations
        self.rows: list[tuple[Tensor, ...]] = []

    def add(
        self, members: Tensor, cost: Tensor, change: Tensor, noise: Tensor, g: tuple[Tensor, ...]
    ) -> None:
        """What an iteration made of the members that have not stopped; g (b, n_i) at its full length."""
        self.rows.append(tuple(self._placed(members, part) for part in (cost, change, noise, *g)))

    def path(self) -> Path:
        cost, change, noise, *g = (self._table(list(rows)) for rows in zip(*self.rows, strict=True))
        return Path(cost, change, noise, tuple(g))

    def _placed(self, members: Tensor, values: Tensor) -> Tensor:
        blank = self.blank.reshape(-1, *[1] * (values.ndim - 1)).expand(-1, *values.shape[1:])
        return blank.index_put((members,), values.to(blank.dtype))

    def _table(self, rows: list[Tensor]) -> Tensor:
        """(B, iterations, ...)."""
        blank = torch.full_like(rows[0], math.nan)
        return torch.stack(rows + [blank] * (self.iterations - len(rows)), 1)


class Run(NamedTuple):
    """Where the loop ended for some members of a flat batch; g has its full length."""

    members: Tensor
    g: tuple[Tensor, ...]
    noise_variance: Tensor
    iterations: Tensor
    ended: Tensor
    path: Path | None = None
    moments: Moments | None = None

    @classmethod
    def of(
        cls, state: State, lengths: tuple[int, ...], members: Tensor, iterations: int, ended: Tensor
    ) -> "Run":
        g = at_full_length(state, lengths)
        return cls(members, g, state.noise_variance, torch.full_like(members, iterations), ended)

    def as_tensors(self) -> "Run":
        """The same outside of inference mode, whose tensors no gradient may pass."""
        return tree_map_only(Tensor, lambda x: x.clone() if x.is_inference() else x, self)

    def in_order(self, history: History | None) -> "Run":
        """Members in the order of the batch, with their history."""
        order = self.members.argsort()
        g = tuple(v[order] for v in self.g)
        run = Run(
            self.members[order], g, self.noise_variance[order], self.iterations[order], self.ended[order]
        )
        if history is None:
            return run
        return run._replace(path=history.path())


def at_full_length(state: State, lengths: tuple[int, ...]) -> tuple[Tensor, ...]:
    """g with the entries that were dropped, as zeros: (B, N_i) each."""
    return tuple(spread(v, (i,), (n,)) for v, i, n in zip(state.g, state.positions, lengths, strict=True))


def join(runs: list[Run]) -> Run:
    """One run of all members."""
    if len(runs) == 1:
        return runs[0]
    first = runs[0]
    g = tuple(torch.cat(parts) for parts in zip(*(run.g for run in runs), strict=True))

    def together(field: str) -> Tensor:
        return torch.cat([getattr(run, field) for run in runs])

    return Run(
        together("members"),
        g,
        together("noise_variance"),
        together("iterations"),
        together("ended"),
        None if first.path is None else join_paths([run.path for run in runs if run.path is not None]),
    )


def join_paths(paths: list[Path]) -> Path:
    cost, change, noise, g = zip(*paths, strict=True)
    return Path(
        torch.cat(cost),
        torch.cat(change),
        torch.cat(noise),
        tuple(torch.cat(parts) for parts in zip(*g, strict=True)),
    )
