"""Small pieces of batched algebra that the estimators share; B is one flat batch axis."""

import math
from collections.abc import Sequence
from functools import reduce
from operator import mul

import torch
from torch import Tensor


def squared_modulus(x: Tensor) -> Tensor:
    """|x|^2, elementwise and real.

    >>> squared_modulus(torch.tensor([3 + 4j]))
    tensor([25.])
    """
    return x.real.square() + x.imag.square() if x.is_complex() else x.square()


def kron_vectors(vectors: Sequence[Tensor]) -> Tensor:
    """v_1 kron ... kron v_I of (B, n_i) vectors: (B, n_1 ... n_I), the first factor slowest.

    >>> kron_vectors([torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 10.0]])])
    tensor([[ 1., 10.,  2., 20.]])
    """
    product = vectors[0]
    for vector in vectors[1:]:
        product = (product.unsqueeze(-1) * vector.unsqueeze(-2)).flatten(-2)
    return product


def kron_distance(new: Sequence[Tensor], old: Sequence[Tensor], relative: bool = True) -> Tensor:
    """||kron(new) - kron(old)||, divided by ||kron(old)|| if `relative`, for non-negative (B, n_i) vectors: (B,).

    Only inner products of the factors are formed, in double precision because their difference cancels.
    Every vector is at relative distance zero from zero.

    >>> kron_distance([torch.tensor([[3.0, 4.0]])], [torch.tensor([[3.0, 0.0]])])
    tensor([1.3333], dtype=torch.float64)
    """
    pairs = [torch.stack((u, v), -2).double() for u, v in zip(new, old, strict=True)]
    products = reduce(mul, [torch.bmm(pair, pair.mT) for pair in pairs])
    moved, mixed, _, scale = products.flatten(-2).unbind(-1)
    square = torch.sub(moved + scale, mixed, alpha=2)
    if relative:
        square = square / scale
    return square.sqrt().nan_to_num(posinf=0.0)  # rounding below zero, and 0 / 0, count as zero


def reciprocal(x: Tensor) -> Tensor:
    """1 / x where x > 0 and zero elsewhere, with finite gradients.

    >>> reciprocal(torch.tensor([2.0, 0.0]))
    tensor([0.5000, 0.0000])
    """
    return x.masked_fill(x <= 0, math.inf).reciprocal()


def root(x: Tensor) -> Tensor:
    """Square root of x where x > 0 and zero elsewhere, with finite gradients.

    >>> root(torch.tensor([4.0, 0.0]))
    tensor([2., 0.])
    """
    if torch.is_inference_mode_enabled():
        return x.clamp(min=0).sqrt_()
    return x.masked_fill(x <= 0, math.inf).rsqrt() * x
