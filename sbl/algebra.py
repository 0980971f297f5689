"""Small pieces of batched algebra that the estimators share; B is one flat batch axis."""

from collections.abc import Sequence

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
    Two zero vectors are at relative distance zero.

    >>> kron_distance([torch.tensor([[3.0, 4.0]])], [torch.tensor([[3.0, 0.0]])])
    tensor([1.3333], dtype=torch.float64)
    """
    scale = cross = square = torch.ones((), dtype=torch.float64, device=new[0].device)
    for u, v in zip(new, old, strict=True):
        u, v = u.double(), v.double()
        scale = scale * (v * v).sum(-1)
        cross = cross * (u * v).sum(-1)
        square = square * (u * u).sum(-1)
    distance = (square + scale - 2 * cross).clamp(min=0).sqrt()
    if not relative:
        return distance
    return torch.where(scale > 0, distance / torch.where(scale > 0, scale, 1).sqrt(), distance)


def reciprocal(x: Tensor) -> Tensor:
    """1 / x where x > 0 and zero elsewhere, with finite gradients.

    >>> reciprocal(torch.tensor([2.0, 0.0]))
    tensor([0.5000, 0.0000])
    """
    positive = x > 0
    return torch.where(positive, 1 / torch.where(positive, x, 1), 0)


def root(x: Tensor) -> Tensor:
    """Square root of x where x > 0 and zero elsewhere, with finite gradients.

    >>> root(torch.tensor([4.0, 0.0]))
    tensor([2., 0.])
    """
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)
