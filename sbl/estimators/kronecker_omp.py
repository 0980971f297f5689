"""Kronecker orthogonal matching pursuit."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...kernels import kron_matvec
from ..algebra import kron_vectors, squared_modulus
from ..estimate import Ended, Estimate
from ..least_squares import kronecker_least_squares, point_estimate, residual_limit
from ..problem import pose


@dataclass(frozen=True)
class KroneckerOMP:
    """Greedy search for a Kronecker support.

    Each step finds the largest multiway correlation |(kron a_i)^H r| / ||kron a_i||, adds its index to the set
    of every mode, and solves least squares on the Kronecker product of the sub-dictionaries. It ends when
    ||r||^2 is within the noise, when every set has `sparsity` indices, or when a step adds none.
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
        problem = pose(factors, y, noise_variance)
        B, lengths = problem.y.shape[0], problem.lengths
        limits = self._limits([A.shape[-2] for A in problem.factors], lengths)
        norms = kron_vectors([squared_modulus(A).sum(-2) for A in problem.factors])
        target = residual_limit(problem)
        chosen = [torch.zeros(B, n, dtype=torch.bool, device=y.device) for n in lengths]
        x = problem.y.new_zeros(B, torch.Size(lengths).numel())
        iterations = torch.zeros(B, dtype=torch.long, device=y.device)
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
            members = members[open_]
            if members.numel() == 0:
                break
            for kept, w in zip(chosen, wider, strict=True):
                kept[members] = w[open_]
            part = problem.pick(members)
            x[members] = kronecker_least_squares(part.factors, [kept[members] for kept in chosen], part.y)
            iterations[members] += 1
        residual = problem.y - kron_matvec(list(problem.factors), x)
        settled = squared_modulus(residual).sum(-1) <= target
        return point_estimate(problem, x, iterations, torch.where(settled, Ended.SETTLED, Ended.ITERATIONS))

    def _limits(self, rows: list[int], lengths: tuple[int, ...]) -> list[int]:
        wanted = self.sparsity if isinstance(self.sparsity, tuple) else (self.sparsity,) * len(rows)
        if len(wanted) != len(rows):
            raise ValueError(f"sparsity has {len(wanted)} numbers for {len(rows)} factors")
        return [min(m, n, k or m) for m, n, k in zip(rows, lengths, wanted, strict=True)]


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
