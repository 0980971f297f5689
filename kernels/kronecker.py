"""Products with Kronecker-structured matrices, factor by factor.

One batched matrix product a factor: nothing of the size of the full matrix is formed.
"""

import math
from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from .dispatch.checks import broadcast_batches, require_one_device


def mode_product(tensor: Tensor, matrix: Tensor, mode: int) -> Tensor:
    """Product of a tensor with a matrix along one axis: Y[.., i, ..] = sum_j A[i, j] X[.., j, ..].

    Args:
        tensor: X (..., N_1, ..., N_I), real or complex.
        matrix: A (..., M, N). Its leading batch axes, if any, pair (and broadcast) with the first axes of
        the tensor.
        mode: the axis of the tensor, of size N, counted as Python does; not one of the batch axes.

    Returns:
        Y, whose axis `mode` has size M; of the promoted dtype. Gradients are those of the matrix product.

    Raises:
        ValueError: shapes or devices do not fit.

    Source: Kolda and Bader, "Tensor decompositions and applications", 2009, section 2.5.

    Example:
        >>> X, A = torch.ones(2, 3, 4), torch.ones(5, 3)
        >>> mode_product(X, A, 1).shape
        torch.Size([2, 5, 4])
    """
    require_one_device(tensor=tensor, matrix=matrix)
    shapes = f"tensor {tuple(tensor.shape)} and matrix {tuple(matrix.shape)}"
    batch = matrix.ndim - 2
    if batch < 0 or not -tensor.ndim <= mode < tensor.ndim or mode % tensor.ndim < batch:
        raise ValueError(
            f"{shapes} do not fit along axis {mode}: matrix must be (..., M, N), axis {mode} no batch axis"
        )
    if tensor.dtype == matrix.dtype == torch.bool:
        raise ValueError("tensor and matrix are both boolean; expected numbers")
    mode = mode % tensor.ndim
    leading = broadcast_batches(shapes, matrix.shape[:-2], tensor.shape[:batch])
    if tensor.shape[mode] != matrix.shape[-1]:
        raise ValueError(f"{shapes} do not fit along axis {mode}")
    before, after = tensor.shape[batch:mode], tensor.shape[mode + 1 :]
    out = _apply(
        tensor.reshape(*tensor.shape[:batch], math.prod(before), matrix.shape[-1], math.prod(after)), matrix
    )
    return out.reshape(*leading, *before, matrix.shape[-2], *after)


def kron_matvec(factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """y = (A_1 kron A_2 kron ... kron A_I) x without the Kronecker product.

    x is read as an N_1 x ... x N_I array, first factor slowest, and multiplied along its first axis, which
    then becomes the last, I times; or from the last axis on, if that takes fewer operations. They are sums
    of products of the sizes in place of prod M_i prod N_i, in I matrix products without a copy.

    Args:
        factors: A_i (..., M_i, N_i), real or complex.
        x: (..., prod N_i). Batch axes of all arguments broadcast.

    Returns:
        y (..., prod M_i), of the promoted dtype. Gradients are those of the matrix products.

    Raises:
        ValueError: no factor, or shapes or devices that do not fit.

    Source: Van Loan, "The ubiquitous Kronecker product", 2000, section 2.

    Example:
        >>> A, B = torch.tensor([[1.0, 2.0]]), torch.eye(2)
        >>> kron_matvec([A, B], torch.tensor([1.0, 2.0, 3.0, 4.0]))
        tensor([ 7., 10.])
    """
    _require_fit(factors, x)
    return apply_kron(*_promoted(factors, x))


def apply_kron(factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """`kron_matvec` of arguments of one dtype that are known to fit."""
    shapes = [A.shape for A in factors]
    rows, columns = [shape[-2] for shape in shapes], [shape[-1] for shape in shapes]
    batch = x.shape[:-1]
    plain = len(batch) == 1 and {shape[:-2] for shape in shapes} == {batch}
    multiply = torch.bmm if plain else torch.matmul  # which takes time to find that it need not broadcast
    if rows != columns and _operations(rows, columns) < _operations(rows[::-1], columns[::-1]):
        for i, A in enumerate(factors):
            rest = math.prod(columns[i + 1 :]) * math.prod(rows[:i])
            x = multiply(x.reshape(*batch, columns[i], rest).mT, A.mT)
            batch = x.shape[:-2]
    else:
        for i in range(len(factors) - 1, -1, -1):
            rest = math.prod(columns[:i]) * math.prod(rows[i + 1 :])
            x = multiply(factors[i], x.reshape(*batch, rest, columns[i]).mT)
            batch = x.shape[:-2]
    return x.flatten(-2)


def _promoted(factors: Sequence[Tensor], x: Tensor) -> tuple[Sequence[Tensor], Tensor]:
    if all(factor.dtype == x.dtype for factor in factors):
        return factors, x
    dtype = reduce(torch.promote_types, (factor.dtype for factor in factors), x.dtype)
    return [factor.to(dtype) for factor in factors], x.to(dtype)


def product(A: Tensor, B: Tensor) -> Tensor:
    """A B; `torch.matmul` takes twice as long to find that it need not broadcast."""
    plain = A.ndim == B.ndim == 3 and A.shape[0] == B.shape[0]
    return torch.bmm(A, B) if plain else A @ B


def _operations(rows: Sequence[int], columns: Sequence[int]) -> int:
    """Multiplications of the products along the axes, in their order."""
    return sum(math.prod(rows[: i + 1]) * math.prod(columns[i:]) for i in range(len(rows)))


def _require_fit(factors: Sequence[Tensor], x: Tensor) -> None:
    if not factors or min(factor.ndim for factor in factors) < 2 or x.ndim < 1:
        raise ValueError(
            f"{_shapes(factors, x)} do not fit: factors must be (..., M_i, N_i), x (..., prod N_i)"
        )
    size = math.prod([factor.shape[-1] for factor in factors])
    if x.shape[-1] != size:
        raise ValueError(f"{_shapes(factors, x)} do not fit: x must have {size} entries in its last axis")
    if x.dtype == torch.bool and all(factor.dtype == torch.bool for factor in factors):
        raise ValueError("factors and x are all boolean; expected numbers")
    if any(factor.device != x.device for factor in factors):
        require_one_device(x=x, **{f"factors[{i}]": factor for i, factor in enumerate(factors)})
    if any(factor.shape[:-2] != x.shape[:-1] for factor in factors):
        broadcast_batches(_shapes(factors, x), x.shape[:-1], *(factor.shape[:-2] for factor in factors))


def _shapes(factors: Sequence[Tensor], x: Tensor) -> str:
    return f"factors {[tuple(factor.shape) for factor in factors]} and x {tuple(x.shape)}"


def _apply(x: Tensor, matrix: Tensor) -> Tensor:
    """A (..., M, N) along the middle axis of x (..., P, N, Q)."""
    if x.dtype != matrix.dtype:
        dtype = torch.promote_types(x.dtype, matrix.dtype)
        x, matrix = x.to(dtype), matrix.to(dtype)
    if x.shape[-1] == 1:
        return (x[..., 0] @ matrix.mT)[..., None]
    if x.shape[-3] == 1:
        return (matrix @ x[..., 0, :, :])[..., None, :, :]
    return matrix[..., None, :, :] @ x
