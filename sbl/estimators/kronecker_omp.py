"""Kronecker orthogonal matching pursuit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels import kron_matvec
from ..algebra import kron_vectors, squared_modulus
from ..em.units import equalise
from ..estimate import Ended, Estimate
from ..least_squares import (
    description_length,
    kronecker_least_squares,
    point_estimate,
    residual_limit,
)
from ..problem import pose


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

    def __call__(
        self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None = None
    ) -> Estimate:
        """Estimate x (..., N_1, ..., N_I) from y (..., M); the variance is zero.

        Raises:
            ValueError: an argument has a wrong shape, a NaN, or a negative variance; the message names it.
        """
        problem, units = equalise(pose(factors, y, noise_variance), in_double=True)
        (B, M), lengths = problem.y.shape, problem.lengths
        selects = problem.noise_variance is None and self.sparsity is None
        limits = self._limits([A.shape[-2] for A in problem.factors], lengths)
        norms = kron_vectors([squared_modulus(A).sum(-2) for A in problem.factors])
        target = residual_limit(problem)
        chosen = [torch.zeros(B, n, dtype=torch.bool, device=y.device) for n in lengths]
        x = problem.y.new_zeros(B, torch.Size(lengths).numel())
        iterations = torch.zeros(B, dtype=torch.long, device=y.device)
        least = description_length(problem, x, iterations, iterations)
        best_x, best_size = x.clone(), torch.zeros_like(iterations)
        members = torch.arange(B, device=y.device)
        for _ in range(sum(limits)):
            part = problem.pick(members)
            residual = part.y - kron_matvec(list(part.factors), x[members])
            open_ = squared_modulus(residual).sum(-1) > target[members]
            correlation = squared_modulus(kron_matvec([A.mH for A in part.factors], residual))
            best = (
                correlation / norms.clamp(min=torch.finfo(norms.dtype).tiny).expand(B, -1)[members]
            ).argmax(-1)
            wider = _extend([kept[members] for kept in chosen], best, limits)
            grown = torch.stack([(w ^ c[members]).any(-1) for w, c in zip(wider, chosen, strict=True)]).any(0)
            open_ = open_ & grown
            if selects:
                open_ = open_ & (_size(wider) <= max(1, M // 2))
            members = members[open_]
            if members.numel() == 0:
                break
            for kept, w in zip(chosen, wider, strict=True):
                kept[members] = w[open_]
            part = problem.pick(members)
            support = [kept[members] for kept in chosen]
            x[members] = kronecker_least_squares(part.factors, support, part.y)
            iterations[members] += 1
            size, better = _size(support), torch.ones_like(members, dtype=torch.bool)
            if selects:
                length = description_length(part, x[members], size, _choices(support))
                better = length < least[members]
                least[members] = torch.minimum(length, least[members])
            best_x[members[better]], best_size[members[better]] = x[members[better]], size[better]
        residual = problem.y - kron_matvec(list(problem.factors), best_x)
        settled = squared_modulus(residual).sum(-1) <= target
        if selects:
            settled |= best_size < _size(chosen)
        ended = torch.where(settled, Ended.SETTLED, Ended.ITERATIONS)
        return point_estimate(problem, best_x, iterations, ended, best_size, units)

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
