"""Robust principal component analysis of a matrix that is to be stored: both parts of given size."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..dispatch.checks import require_matrix
from ..low_rank import lowrank_sparse_step
from ..svd import svd, svdvals
from .low_rank import shown

ROUNDS, CONVERGED = 50, 1e-8
STEPS, GROWTH = 40, 1.5  # of the augmented Lagrangian, and of its penalty from one to the next


class LowRankPlusSparse(NamedTuple):
    """A matrix `left` @ `right` + `sparse`: (..., m, r), (..., r, n) and (..., m, n), the latter mostly zeros."""

    left: Tensor
    right: Tensor
    sparse: Tensor


@torch.no_grad()
def low_rank_plus_sparse(matrix: Tensor, rank: int, density: float) -> LowRankPlusSparse:
    """W as L + S with a small error |W - L - S|_F, rank L <= `rank` and at most density m n nonzeros in S.

    Alternates  L = truncated SVD of W - S,  S = the largest entries of W - L,  from S = 0 and from that of
    principal component pursuit, and takes the better end. No step increases the error, which is never above that
    of the truncated SVD of that rank; where W is an incoherent low-rank matrix plus few large entries, they are
    found.

    Args:
        matrix: W (..., m, n), float32, float64, complex64 or complex128.
        rank: at least 1, at most min(m, n).
        density: share of nonzeros in S, from 0 to 1; their number is rounded down.

    Returns:
        left (..., m, rank), right (..., rank, n) and sparse (..., m, n), in the precision of W; computed in
        double. They are a choice, without gradient.

    Raises:
        ValueError: a number, a shape or a dtype.
        torch.linalg.LinAlgError: `matrix` holds NaN or infinity.

    Source: Zhou and Tao, "GoDec: randomized low-rank and sparse matrix decomposition in noisy case", ICML 2011;
    the second start by Lin, Chen and Ma, 2010, as in `lowrank_sparse_step`.

    Example:
        >>> matrix = torch.ones(8, 8)
        >>> matrix[1, 2] = 9.0
        >>> left, right, sparse = low_rank_plus_sparse(matrix, rank=1, density=1 / 64)
        >>> torch.allclose(left @ right, torch.ones(8, 8)), int((sparse != 0).sum())
        (True, 1)
    """
    require_matrix("matrix", matrix)
    m, n = matrix.shape[-2:]
    if not 1 <= rank <= min(m, n):
        raise ValueError(f"rank must be from 1 to {min(m, n)} for {shown(matrix)}, got {rank}")
    if not 0 <= density <= 1:
        raise ValueError(f"density must be from 0 to 1, got {density}")
    W = matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)
    count = int(density * m * n)
    first, second = (_alternated(W, start, rank, count) for start in (torch.zeros_like(W), _pursued(W)))
    better = (_error(W, first) <= _error(W, second))[..., None, None]
    parts = (torch.where(better, *pair).to(matrix.dtype) for pair in zip(first, second, strict=True))
    return LowRankPlusSparse(*parts)


def _alternated(W: Tensor, sparse: Tensor, rank: int, count: int) -> LowRankPlusSparse:
    before, size = torch.inf, float(torch.linalg.vector_norm(W))
    for _ in range(ROUNDS):
        U, S, Vh = svd(W - sparse)
        left, right = U[..., :rank], S[..., :rank, None] * Vh[..., :rank, :]
        sparse = _largest(W - left @ right, count)
        found = LowRankPlusSparse(left, right, sparse)
        error = float(_error(W, found).sum())
        if before - error <= CONVERGED * size:
            break
        before = error
    return found


def _pursued(W: Tensor) -> Tensor:
    """S of  min |L|_* + lambda |S|_1,  L + S = W,  lambda = 1 / sqrt(max(m, n))."""
    largest = svdvals(W)[..., 0]
    penalty = 1.25 / largest.where(largest > 0, 1)
    S, dual = torch.zeros_like(W), torch.zeros_like(W)
    for _ in range(STEPS):
        _, S, dual = lowrank_sparse_step(W, S, dual, penalty, max(W.shape[-2:]) ** -0.5)
        penalty = GROWTH * penalty
    return S


def _error(W: Tensor, found: LowRankPlusSparse) -> Tensor:
    return torch.linalg.vector_norm(W - found.left @ found.right - found.sparse, dim=(-2, -1))


def _largest(matrix: Tensor, count: int) -> Tensor:
    """The `count` entries of largest modulus, zero elsewhere."""
    flat = matrix.flatten(-2)
    index = flat.abs().topk(count, -1).indices
    return torch.zeros_like(flat).scatter(-1, index, flat.gather(-1, index)).view_as(matrix)
