"""E-step of a prior without structure, x ~ N(0, diag(g)) with one variance for each of the N entries.

With K = s2 I + A diag(g) A^H = R R^H (Cholesky), by Woodbury's identity

    mean     = diag(g) A^H K^-1 y,
    variance = g - g^2 diag(A^H K^-1 A).

A itself is never formed: A diag(g) A^H and diag(A^H K^-1 A) are Kronecker products of the factors'
elementwise products A_i[m, n] conj(A_i[m', n]) with g and with K^-1, both of size M x M.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels import kron_matvec
from ..algebra import squared_modulus
from .state import State


class UnstructuredPosterior(NamedTuple):
    """See `KroneckerPosterior` for what each method gives."""

    state: State
    cholesky: Tensor  # (B, M, M)
    dual: Tensor  # (B, M): K^-1 y
    gain: Tensor  # (B, N): diag(A^H K^-1 A)

    def mean(self) -> Tensor:
        adjoint = [A.mH for A in self.state.factors]
        return self.state.g[0] * kron_matvec(adjoint, self.dual)

    def variance(self) -> Tensor:
        g = self.state.g[0]
        return (g - g.square() * self.gain).clamp(min=0)

    def cost(self) -> Tensor:
        log_det = 2 * self.cholesky.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
        return log_det + (self.state.y.conj() * self.dual).real.sum(-1)

    def residual(self) -> Tensor:
        return squared_modulus(self.state.noise_variance.unsqueeze(-1) * self.dual).sum(-1)

    def degrees_of_freedom(self) -> Tensor:
        return (self.state.g[0] * self.gain).sum(-1)


def unstructured_posterior(state: State) -> UnstructuredPosterior:
    """The posterior under prior variances g[0]; rounding's share of the trace keeps K definite at s2 = 0."""
    y, g = state.y, state.g[0]
    pairs = [_pairs(A) for A in state.factors]
    rows = [A.shape[-2] for A in state.factors]
    K = _to_matrix(kron_matvec([p.mT for p in pairs], g.to(y.dtype)), rows)
    power = K.diagonal(dim1=-2, dim2=-1).real.amax(-1)
    eps = torch.finfo(g.dtype).eps * y.shape[-1]
    noise = torch.maximum(state.noise_variance, eps * power).clamp(min=torch.finfo(g.dtype).tiny ** 0.5)
    K = K + torch.diag_embed(noise.unsqueeze(-1).expand(y.shape)).to(y.dtype)
    R = torch.linalg.cholesky_ex(K)[0]
    inverse = torch.cholesky_inverse(R)
    dual = torch.cholesky_solve(y.unsqueeze(-1), R).squeeze(-1)
    gain = kron_matvec([p.conj() for p in pairs], _from_matrix(inverse, rows)).real.clamp(min=0)
    return UnstructuredPosterior(state, R, dual, gain)


def _pairs(A: Tensor) -> Tensor:
    """A[m, n] conj(A[m', n]) as (B, n, M M)."""
    columns = A.mT
    return (columns.unsqueeze(-1) * columns.conj().unsqueeze(-2)).flatten(-2)


def _to_matrix(x: Tensor, rows: list[int]) -> Tensor:
    """(B, M_1 M_1 ... M_I M_I) to (B, M, M)."""
    order = len(rows)
    split = x.reshape(len(x), *(m for row in rows for m in (row, row)))
    axes = [0, *range(1, 2 * order, 2), *range(2, 2 * order + 1, 2)]
    M = torch.Size(rows).numel()
    return split.permute(axes).reshape(len(x), M, M)


def _from_matrix(matrix: Tensor, rows: list[int]) -> Tensor:
    """(B, M, M) to (B, M_1 M_1 ... M_I M_I)."""
    order = len(rows)
    split = matrix.reshape(len(matrix), *rows, *rows)
    axes = [0, *(axis for i in range(order) for axis in (1 + i, 1 + order + i))]
    return split.permute(axes).flatten(1)
