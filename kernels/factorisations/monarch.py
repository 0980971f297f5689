"""Monarch matrices: two block-diagonal factors with a permutation between them."""

from typing import NamedTuple

from torch import Tensor

from ..dispatch.checks import require_matrix
from ..svd import svd
from .low_rank import shown


class Monarch(NamedTuple):
    """A matrix (..., m, n) of blocks b and rank r, as two batched products.

        (M x)[l, a] = sum_{k, t} left[l, a, k r + t] (sum_s right[k, l r + t, s] x[k, s])

    Rows are counted as (l, a) and columns as (k, s), with l and k from 1 to b.

    left: (..., b, m / b, b r).  right: (..., b, b r, n / b); together b r (m + n) numbers.
    """

    left: Tensor
    right: Tensor

    def product(self, x: Tensor) -> Tensor:
        """M x for x (..., n, p): (..., m, p)."""
        blocks = self.left.shape[-3]
        z = self.right @ x.unflatten(-2, (blocks, -1))
        z = z.unflatten(-2, (blocks, -1)).transpose(-4, -3).flatten(-3, -2)
        return (self.left @ z).flatten(-3, -2)

    def dense(self) -> Tensor:
        """M itself, (..., m, n)."""
        blocks = self.left.shape[-3]
        left = self.left.unflatten(-1, (blocks, -1)).transpose(-3, -2)
        right = self.right.unflatten(-2, (blocks, -1)).transpose(-4, -3)
        return (left @ right).transpose(-3, -2).flatten(-4, -3).flatten(-2, -1)


def monarch_project(matrix: Tensor, blocks: int, rank: int = 1) -> Monarch:
    """The Monarch matrix closest to `matrix` in the Frobenius norm, in closed form.

    Block (l, k) of a Monarch matrix, of blocks x blocks that are m/b x n/b, is any matrix of rank at most `rank`:
    the projection truncates the singular value decomposition of each block.

        left[l, :, k] = U_lk S_lk^1/2,   right[k, l, :] = S_lk^1/2 V_lk^H

    Args:
        matrix: (..., m, n), float32, float64, complex64 or complex128; m and n multiples of `blocks`.
        blocks: b; 1 gives the truncated singular value decomposition.
        rank: of each block, at most min(m, n) / b; 1 as published.

    Returns:
        The factors, balanced. Gradient: that of `svd`; of the root at a singular value of zero it is 0.

    Raises:
        ValueError: the blocks, the rank, the shape or the dtype.
        torch.linalg.LinAlgError: `matrix` holds NaN or infinity.

    Source: Dao et al., "Monarch: expressive structured matrices for efficient and accurate training", ICML 2022,
    theorem 1 and algorithm 1.

    Example:
        >>> import torch
        >>> matrix = torch.kron(torch.eye(2), torch.ones(3, 3)) + 1
        >>> closest = monarch_project(matrix, blocks=2)
        >>> closest.left.shape, closest.right.shape, torch.allclose(closest.dense(), matrix)
        (torch.Size([2, 3, 2]), torch.Size([2, 2, 3]), True)
    """
    require_matrix("matrix", matrix)
    if blocks < 1 or any(size % blocks for size in matrix.shape[-2:]):
        raise ValueError(f"blocks must divide the rows and columns of {shown(matrix)}, got {blocks}")
    if not 1 <= rank <= min(matrix.shape[-2:]) // blocks:
        most = min(matrix.shape[-2:]) // blocks
        raise ValueError(
            f"rank must be from 1 to {most} for {shown(matrix)} of {blocks} x {blocks} blocks, got {rank}"
        )
    split = matrix.unflatten(-1, (blocks, -1)).unflatten(-3, (blocks, -1)).transpose(-3, -2)
    U, S, Vh = svd(split)
    root = _root(S[..., :rank])
    left = (U[..., :rank] * root[..., None, :]).transpose(-3, -2).flatten(-2, -1)
    right = (root[..., None] * Vh[..., :rank, :]).transpose(-4, -3).flatten(-3, -2)
    return Monarch(left, right)


def _root(S: Tensor) -> Tensor:
    """The square root, of zero with gradient 0."""
    positive = S > 0
    return S.where(positive, 1).sqrt() * positive
