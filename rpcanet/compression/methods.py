"""The published forms of a weight, each within a number of parameters."""

from collections.abc import Callable
from math import gcd

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
    vertical, horizontal = truncated_svd(matrix_of(weight), rank, gram)
    balance = (horizontal.norm(dim=1) / vertical.norm(dim=0)).sqrt().nan_to_num(1.0)
    left, right = (horizontal.mT / balance)[None], (vertical * balance).mT[None]
    return BlockFactors(weight.shape, left=left.contiguous(), right=right.contiguous())


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
    used = (found.dictionary != 0).any(0)
    atoms_used = found.dictionary[:, used].contiguous()
    return DictionaryFactors(weight.shape, atoms=atoms_used, **packed(found.coefficients[used]))


def low_rank_sparse(weight: Tensor, rank: int, gram: Tensor | None) -> Factors:
    """Half of the numbers in each part, whatever the inputs."""
    matrix = matrix_of(weight)
    m, n = matrix.shape
    kept = max(1, rank // 2)
    nonzeros = max(1, (rank - kept) * (m + n) - m * n // 32)
    left, right, sparse = low_rank_plus_sparse(matrix, kept, nonzeros / (m * n))
    return LowRankSparseFactors(weight.shape, left=left, right=right, **packed(sparse))


Make = Callable[[Tensor, int, Tensor | None], Factors]
METHODS: dict[str, Make] = {
    "separable": separable,
    "monarch": monarch,
    "dictionary": dictionary,
    "low_rank_plus_sparse": low_rank_sparse,
}
