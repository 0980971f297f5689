"""Orthogonal matching pursuit on the vectorised problem."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..algebra import kron_vectors
from ..estimate import Estimate
from ..problem import Problem
from .greedy import Search, require_sparsity

# Columns, beside as many as the best support has, that may come in vain before an unknown noise ends the search.
PATIENCE = 10


@dataclass(frozen=True)
class OMP:
    """Greedy search without structure: the column of A most correlated with the residual, then least squares.

    It ends when ||r||^2 is within the noise or after `sparsity` columns. Where neither the noise nor a sparsity is
    known it goes on, to M / 2 columns at most, until its supports get worse by `description_length`, and returns
    the best. Least squares goes through the Cholesky factor of the chosen columns' Gram matrix; only the chosen
    columns of A are formed, in double precision.
    Source: Tropp and Gilbert, IEEE Trans. Information Theory 2007.

    sparsity: the most columns it may take; None for M.

    >>> A = [torch.eye(2), torch.eye(3)]
    >>> OMP()(A, torch.tensor([0.0, 0, 0, 0, 5, 0]), 1e-3).mean
    tensor([[0., 0., 0.],
            [0., 5., 0.]])
    """

    sparsity: int | None = None

    def __post_init__(self) -> None:
        require_sparsity(self.sparsity)

    def __call__(
        self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None = None
    ) -> Estimate:
        """Estimate x (..., N_1, ..., N_I) from y (..., M); the variance is zero.

        Raises:
            ValueError: an argument has a wrong shape, a NaN, or a negative variance; the message names it.
        """
        search = Search(factors, y, noise_variance, self.sparsity is not None)
        problem, members = search.problem, search.members
        (B, M), N = problem.y.shape, search.x.shape[-1]
        limit = min(M, N, search.most if search.selects else self.sparsity or M)
        residual = problem.y
        index = torch.empty(B, 0, dtype=torch.long, device=y.device)
        columns = problem.y.new_empty(B, M, 0)
        for count in range(1, limit + 1):
            moving = search.unexplained(members, residual)
            if search.selects:
                moving &= count <= 2 * search.size[members] + PATIENCE
            members, residual, index, columns = (t[moving] for t in (members, residual, index, columns))
            if members.numel() == 0:
                break
            part = problem.pick(members)
            best = search.scores(members, residual).scatter(-1, index, -1.0).argmax(-1, keepdim=True)
            index = torch.cat([index, best], -1)
            columns = torch.cat([columns, _column(part, best.squeeze(-1)).unsqueeze(-1)], -1)
            values = _gram_solve(columns, part.y)
            residual = part.y - (columns @ values.unsqueeze(-1)).squeeze(-1)
            size = torch.full_like(members, count)
            found = torch.zeros_like(search.x[members]).scatter(-1, index, values)
            search.keep_better(members, found, size, size * math.log(N))
        return search.estimate(search.size, limit)


def _column(problem: Problem, best: Tensor) -> Tensor:
    """The column of A at each member's flat index: (B, M)."""
    columns = []
    for A in reversed(problem.factors):
        n = A.shape[-1]
        A = A.expand(len(best), -1, -1)
        columns.append(A.gather(-1, (best % n).reshape(-1, 1, 1).expand(-1, A.shape[-2], 1)).squeeze(-1))
        best = best // n
    return kron_vectors(columns[::-1])


def _gram_solve(columns: Tensor, y: Tensor) -> Tensor:
    gram = columns.mH @ columns
    diagonal = gram.diagonal(dim1=-2, dim2=-1).real
    eps = torch.finfo(diagonal.dtype).eps * gram.shape[-1]
    ridge = (
        (eps * diagonal.amax(-1, keepdim=True))
        .clamp(min=torch.finfo(diagonal.dtype).tiny)
        .expand(diagonal.shape)
    )
    R = torch.linalg.cholesky_ex(gram + torch.diag_embed(ridge).to(gram.dtype))[0]
    return torch.cholesky_solve(columns.mH @ y.unsqueeze(-1), R).squeeze(-1)
