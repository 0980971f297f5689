"""The published forms of a weight, each within a number of parameters."""

from collections.abc import Callable
from math import gcd

import torch
from torch import Tensor

from ...kernels import low_rank_plus_sparse, monarch_project, sparse_dictionary, truncated_svd
from ...kernels.factorisations.low_rank import whitening
from .curvature import Gram, Weighing
from .forms import BlockFactors, DictionaryFactors, Factors, LowRankSparseFactors, matrix_of, packed

BLOCKS = 4


def blocks_of(shape: tuple[int, ...]) -> int:
    """Blocks of a Monarch matrix: groups of channels."""
    return gcd(BLOCKS, *shape[:2])


def unit_of(shape: tuple[int, ...]) -> int:
    """Ranks come in multiples of a quarter of the channels, which a Monarch matrix's blocks divide."""
    blocks = blocks_of(shape)
    return blocks * max(1, min(shape[:2]) // (4 * blocks))


def separable(weight: Tensor, rank: int, weighing: Weighing) -> Factors:
    """A sum of `rank` separable filters, the best as errors are weighed.

    Source: Jaderberg et al., "Speeding up convolutional neural networks with low rank expansions", BMVC 2014.
    """
    vertical, horizontal = low_rank(matrix_of(weight), rank, weighing)
    return BlockFactors(
        weight.shape, left=horizontal.mT[None].contiguous(), right=vertical.mT[None].contiguous()
    )


def monarch(weight: Tensor, rank: int, weighing: Weighing) -> Factors:
    """A Monarch matrix of as many numbers, the closest as errors of its blocks are weighed."""
    blocks = blocks_of(weight.shape)
    rows, unwhiten_rows = whitening(
        matrix_of(weight).unflatten(0, (blocks, -1)), groups(weighing.inputs, blocks)
    )
    turned = rows.flatten(0, 1).mT.unflatten(0, (blocks, -1))
    columns, unwhiten_columns = whitening(turned, groups(weighing.outputs, blocks))
    left, right = monarch_project(columns.flatten(0, 1), blocks, rank // blocks)
    left, right = (unwhiten_columns @ left).to(weight.dtype), (right @ unwhiten_rows).to(weight.dtype)
    balance = (right.norm() / left.norm()).nan_to_num(1.0).sqrt()
    return BlockFactors(
        weight.shape, left=(left * balance).contiguous(), right=(right / balance).contiguous()
    )


def groups(gram: Gram | None, blocks: int) -> Tensor | None:
    """The blocks on the diagonal, (blocks, m / blocks, m / blocks) of (m, m)."""
    if gram is None:
        return None
    blocked = gram.matrix.unflatten(1, (blocks, -1)).unflatten(0, (blocks, -1))
    return blocked.diagonal(dim1=0, dim2=2).movedim(-1, 0)


def dictionary(weight: Tensor, rank: int, weighing: Weighing) -> Factors:
    """Twice as many atoms as nonzeros in each column of coefficients, as CoSpaDi has them."""
    matrix = matrix_of(weight)
    m, n = matrix.shape
    atoms = int(rank * (m + n) / (m + n / 2 + n / 32))
    scale = roots(weighing.outputs, matrix[0])
    rows = Weighing(weighing.inputs)
    found = sparse_dictionary(rows.white(matrix * scale), atoms, max(1, atoms // 2))
    D, C = (part.to(matrix.dtype) for part in rows.factors(*found))
    used = (C != 0).any(1)
    vertical, horizontal = balanced(D[:, used], C[used] / scale)
    return DictionaryFactors(weight.shape, atoms=vertical, **packed(horizontal))


def low_rank_sparse(weight: Tensor, rank: int, weighing: Weighing) -> Factors:
    """Half of the numbers in each part: the nonzeros that count most, then the best of low rank beside them."""
    matrix = matrix_of(weight)
    m, n = matrix.shape
    kept = max(1, rank // 2)
    nonzeros = max(1, (rank - kept) * (m + n) - m * n // 32)
    scale = roots(weighing.inputs, matrix[:, 0])[:, None] * roots(weighing.outputs, matrix[0])
    sparse = low_rank_plus_sparse(matrix * scale, kept, nonzeros / (m * n)).sparse / scale
    left, right = low_rank(matrix - sparse, kept, weighing)
    return LowRankSparseFactors(weight.shape, left=left, right=right, **packed(sparse))


def low_rank(matrix: Tensor, rank: int, weighing: Weighing) -> tuple[Tensor, Tensor]:
    """The factors of the closest matrix of that rank, as errors are weighed."""
    left, right = weighing.factors(*truncated_svd(weighing.white(matrix), rank))
    return balanced(left.to(matrix.dtype), right.to(matrix.dtype))


def roots(gram: Gram | None, like: Tensor) -> Tensor:
    """Of the diagonal, of mean square one."""
    if gram is None:
        return torch.ones_like(like)
    squares = gram.matrix.diagonal()
    return (squares / squares.mean()).sqrt().to(like.dtype)


def balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product, a column of `left` as long as its row of `right`, so that training moves both alike."""
    lengths = left.norm(dim=0), right.norm(dim=1)
    balance = torch.where(lengths[0] * lengths[1] > 0, lengths[1] / lengths[0], 1.0).sqrt()
    return left * balance, right / balance[:, None]


Make = Callable[[Tensor, int, Weighing], Factors]
METHODS: dict[str, Make] = {
    "separable": separable,
    "monarch": monarch,
    "dictionary": dictionary,
    "low_rank_plus_sparse": low_rank_sparse,
}
