"""Products with Kronecker-structured matrices, factor by factor."""

import math
from collections.abc import Sequence

from torch import Tensor


def mode_product(tensor: Tensor, matrix: Tensor, mode: int) -> Tensor:
    """Multiply axis `mode` of a tensor by a (..., M, N) matrix; the tensor's first axes pair with the matrix's batch."""
    mode = mode % tensor.ndim
    moved = tensor.movedim(mode, -1)
    batch = matrix.ndim - 2
    between = moved.ndim - batch - 1
    aligned = matrix.mT.reshape(*matrix.shape[:-2], *[1] * (between - 1), *matrix.mT.shape[-2:])
    return (moved @ aligned).movedim(-1, mode)


def kron_matvec(factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """(A_1 kron A_2 kron ...) x for factors (..., M_i, N_i) and x (..., prod N_i); the first factor is slowest."""
    y = x.unflatten(-1, [factor.shape[-1] for factor in factors])
    order = len(factors)
    for i, factor in enumerate(factors):
        moved = y.movedim(i - order, -1)
        rows = moved.shape[-order:-1]
        flat = moved.reshape(*moved.shape[:-order], math.prod(rows), moved.shape[-1])
        y = (flat @ factor.mT).unflatten(-2, rows).movedim(-1, i - order)
    return y.flatten(-order)
