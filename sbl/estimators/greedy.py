"""What OMP and KroneckerOMP share: a search for the support that ends at the noise, or by description length."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from ...kernels import kron_matvec
from ..algebra import squared_modulus
from ..em.units import equalise
from ..estimate import Ended, Estimate
from ..least_squares import description_length, point_estimate, residual_limit
from ..problem import pose


def require_sparsity(sparsity: Any) -> None:
    """ValueError where it is neither None nor a whole number of at least 1."""
    if sparsity is None:
        return
    if not isinstance(sparsity, Integral):
        raise ValueError(f"sparsity must be a whole number, got {sparsity!r}")
    if int(sparsity) < 1:
        raise ValueError(f"sparsity must be at least 1, got {sparsity}")


class Search:
    """The best x (B, N) that was found so far, on `size` (B,) entries, and what decides whether another is better.

    problem, units: the problem on columns of norm one. selects: whether neither the noise nor the size of the
    support is known; then `description_length` chooses among supports of at most `most` entries.
    """

    def __init__(
        self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None, size_is_known: bool
    ) -> None:
        self.problem, self.units = equalise(pose(factors, y, noise_variance), in_double=True)
        (B, M), N = self.problem.y.shape, torch.Size(self.problem.lengths).numel()
        self.selects = self.problem.noise_variance is None and not size_is_known
        self.most = max(1, M // 2)
        self.target = residual_limit(self.problem)
        self.x = self.problem.y.new_zeros(B, N)
        self.size = torch.zeros(B, dtype=torch.long, device=y.device)
        self.members = torch.arange(B, device=y.device)
        self._least = description_length(self.problem, self.x, self.size, self.size)

    def scores(self, members: Tensor, residual: Tensor) -> Tensor:
        """|a_n^H r|^2 of every column, which has norm one unless it is zero to rounding: (b, N)."""
        adjoint = [A.mH for A in self.problem.pick(members).factors]
        return squared_modulus(kron_matvec(adjoint, residual))

    def unexplained(self, members: Tensor, residual: Tensor) -> Tensor:
        """Whether the residual holds more than noise: (b,)."""
        return squared_modulus(residual).sum(-1) > self.target[members]

    def keep_better(self, members: Tensor, x: Tensor, size: Tensor, choices: Tensor) -> None:
        """Take x (b, N) on `size` entries, of e^choices supports, where it is better or nothing selects."""
        better = torch.ones_like(members, dtype=torch.bool)
        if self.selects:
            length = description_length(self.problem.pick(members), x, size, choices)
            better = length < self._least[members]
            self._least[members] = torch.minimum(length, self._least[members])
        self.x[members[better]], self.size[members[better]] = x[better], size[better]

    def estimate(self, iterations: Tensor, largest: Tensor | int) -> Estimate:
        """The best x; settled where noise ended the search, or supports of up to `largest` entries were worse."""
        residual = self.problem.y - kron_matvec(list(self.problem.factors), self.x)
        settled = squared_modulus(residual).sum(-1) <= self.target
        if self.selects:
            settled |= self.size < largest
        ended = torch.where(settled, Ended.SETTLED, Ended.ITERATIONS)
        return point_estimate(self.problem, self.x, iterations, ended, self.size, self.units)
