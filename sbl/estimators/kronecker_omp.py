"""Kronecker orthogonal matching pursuit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels import kron_matvec
from ..estimate import Estimate
from ..least_squares import kronecker_least_squares
from .greedy import Search, require_sparsity


@dataclass(frozen=True)
class KroneckerOMP:
    """Greedy search for a Kronecker support.

    Each step finds the largest multiway correlation |(kron a_i)^H r| / ||kron a_i||, adds its index to the set
    of every mode, and solves least squares on the Kronecker product of the sub-dictionaries. It ends when
    ||r||^2 is within the noise, when every set has `sparsity` indices, or when a step adds none. Where neither the
    noise nor a sparsity is known it goes on to M / 2 entries and returns the best support by `description_length`.
    Source: Caiafa and Cichocki, Neural Computation 2013, Kronecker-OMP.

    sparsity: indices a mode may take, a number or one a factor; None for as many as the factor has rows.

    >>> A = [torch.eye(2), torch.eye(3)]
    >>> KroneckerOMP()(A, torch.tensor([0.0, 0, 0, 0, 5, 0]), 1e-3).mean
    tensor([[0., 0., 0.],
            [0., 5., 0.]])
    """

    sparsity: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for sparsity in self.sparsity if isinstance(self.sparsity, tuple) else (self.sparsity,):
            require_sparsity(sparsity)

    def __call__(
        self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None = None
    ) -> Estimate:
        """Estimate x (..., N_1, ..., N_I) from y (..., M); the variance is zero.

        Raises:
            ValueError: an argument has a wrong shape, a NaN, or a negative variance; the message names it.
        """
        search = Search(factors, y, noise_variance, self.sparsity is not None)
        problem, members = search.problem, search.members
        limits = self._limits([A.shape[-2] for A in problem.factors], problem.lengths)
        chosen = [torch.zeros(len(members), n, dtype=torch.bool, device=y.device) for n in problem.lengths]
        x, iterations = search.x.clone(), torch.zeros_like(members)
        for _ in range(sum(limits)):
            part = problem.pick(members)
            residual = part.y - kron_matvec(list(part.factors), x[members])
            best = search.scores(members, residual).argmax(-1)
            wider = _extend([kept[members] for kept in chosen], best, limits)
            grown = torch.stack([(w ^ c[members]).any(-1) for w, c in zip(wider, chosen, strict=True)]).any(0)
            moving = search.unexplained(members, residual) & grown
            if search.selects:
                moving &= _size(wider) <= search.most
            members = members[moving]
            if members.numel() == 0:
                break
            for kept, w in zip(chosen, wider, strict=True):
                kept[members] = w[moving]
            part = problem.pick(members)
            support = [kept[members] for kept in chosen]
            x[members] = kronecker_least_squares(part.factors, support, part.y)
            iterations[members] += 1
            search.keep_better(members, x[members], _size(support), _choices(support))
        return search.estimate(iterations, _size(chosen))

    def _limits(self, rows: list[int], lengths: tuple[int, ...]) -> list[int]:
        wanted = self.sparsity if isinstance(self.sparsity, tuple) else (self.sparsity,) * len(rows)
        if len(wanted) != len(rows):
            raise ValueError(f"sparsity has {len(wanted)} numbers for {len(rows)} factors")
        return [min(m, n, k or m) for m, n, k in zip(rows, lengths, wanted, strict=True)]


def _size(support: list[Tensor]) -> Tensor:
    """Entries of the Kronecker product of index sets: (B,)."""
    return torch.stack([kept.sum(-1) for kept in support]).prod(0)


def _choices(support: list[Tensor]) -> Tensor:
    """k log N of every mode's set of k of N indices, in all: (B,)."""
    return torch.stack([kept.sum(-1) * math.log(kept.shape[-1]) for kept in support]).sum(0)


def _extend(chosen: list[Tensor], best: Tensor, limits: list[int]) -> list[Tensor]:
    """Add the multi-index of the flat index `best` to each mode's set, where the set has room."""
    wider = []
    for kept, limit in zip(reversed(chosen), reversed(limits), strict=True):
        n = kept.shape[-1]
        room = kept.sum(-1, keepdim=True) < limit
        hit = torch.nn.functional.one_hot(best % n, n).bool()
        wider.append(kept | (hit & room))
        best = best // n
    return wider[::-1]
