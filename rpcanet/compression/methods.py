"""The published forms of a weight, each within a number of parameters."""

from collections.abc import Callable
from math import gcd

import torch
from torch import Tensor

from ...kernels import low_rank_plus_sparse, monarch_project, sparse_dictionary, truncated_svd
from .forms import BlockFactors, DictionaryFactors, Factors, LowRankSparseFactors, matrix_of, packed

BLOCKS = 4


def blocks_of(shape: tuple[int, ...]) -> int:
    """Blocks of a Monarch matrix: groups of channels."""
    return gcd(BLOCKS, *shape[:2])


def unit_of(shape: tuple[int, ...]) -> int:
    """Ranks come in multiples of a quarter of the channels, which a Monarch matrix's blocks divide."""
    blocks = blocks_of(shape)
    return blocks * max(1, min(shape[:2]) // (4 * blocks))


def separable(weight: Tensor, rank: int, gram: Tensor | None) -> Factors:
    """A sum of `rank` separable filters, the best for the inputs that `gram` tells of.

    Source: Jaderberg et al., "Speeding up convolutional neural networks with low rank expansions", BMVC 2014.
    """
    vertical, horizontal = balanced(*truncated_svd(matrix_of(weight), rank, gram))
    return BlockFactors(
        weight.shape, left=horizontal.mT[None].contiguous(), right=vertical.mT[None].contiguous()
    )


def monarch(weight: Tensor, rank: int, gram: Tensor | None) -> Factors:
    """The closest Monarch matrix of as many numbers, whatever the inputs."""
    blocks = blocks_of(weight.shape)
    left, right = monarch_project(matrix_of(weight).mT, blocks, rank // blocks)
    return BlockFactors(weight.shape, left=left.contiguous(), right=right.contiguous())


def dictionary(weight: Tensor, rank: int, gram: Tensor | None) -> Factors:
    """Twice as many atoms as nonzeros in each column of coefficients, as CoSpaDi has them."""
    matrix = matrix_of(weight)
    m, n = matrix.shape
    atoms = int(rank * (m + n) / (m + n / 2 + n / 32))
    found = sparse_dictionary(matrix, atoms, max(1, atoms // 2), gram)
    used = (found.coefficients != 0).any(1)
    vertical, horizontal = balanced(found.dictionary[:, used], found.coefficients[used])
    return DictionaryFactors(weight.shape, atoms=vertical, **packed(horizontal))


def low_rank_sparse(weight: Tensor, rank: int, gram: Tensor | None) -> Factors:
    """Half of the numbers in each part, whatever the inputs."""
    matrix = matrix_of(weight)
    m, n = matrix.shape
    kept = max(1, rank // 2)
    nonzeros = max(1, (rank - kept) * (m + n) - m * n // 32)
    found = low_rank_plus_sparse(matrix, kept, nonzeros / (m * n))
    left, right = balanced(found.left, found.right)
    return LowRankSparseFactors(weight.shape, left=left, right=right, **packed(found.sparse))


def balanced(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same product, a column of `left` as long as its row of `right`, so that training moves both alike."""
    lengths = left.norm(dim=0), right.norm(dim=1)
    balance = torch.where(lengths[0] * lengths[1] > 0, lengths[1] / lengths[0], 1.0).sqrt()
    return left * balance, right / balance[:, None]


Make = Callable[[Tensor, int, Tensor | None], Factors]
METHODS: dict[str, Make] = {
    "separable": separable,
    "monarch": monarch,
    "dictionary": dictionary,
    "low_rank_plus_sparse": low_rank_sparse,
}
