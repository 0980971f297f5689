"""Alternating updates of Kronecker-structured prior variances, which AM-KroSBL, KSBL and PC-KroSBL share."""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from operator import mul

import torch
from torch import Tensor

from ..algebra import kron_distance, reciprocal
from .loop import normalise

Couple = Callable[[int, Tensor], Tensor]


def uncoupled(factor: int, g: Tensor) -> Tensor:
    """Entries of a prior without neighbours."""
    return g


def sweep(second_moment: Tensor, g: Sequence[Tensor], couple: Couple = uncoupled) -> tuple[Tensor, ...]:
    """One pass over the factors, each update using the newest others.

        g_i[n] = couple_i( (1 / prod_{j != i} N_j) sum over the other modes of L / prod_{j != i} g_j )

    second_moment: L, (B, n_1 ... n_I), zero where an entry is pruned. g: (B, n_i), zero where pruned; N_j
    counts the entries that are not. `couple` leaves pruned entries at zero.

    >>> sweep(torch.tensor([[2.0, 4.0, 6.0, 12.0]]), [torch.ones(1, 2), torch.ones(1, 2)])
    (tensor([[3., 9.]]), tensor([[0.6667, 1.3333]]))
    """
    return _pass(second_moment, g, _weights(g), couple)


def _weights(g: Sequence[Tensor]) -> list[Tensor]:
    """1 / prod_{j != i} N_j for the entries of g_i that are kept, 0 for the others: (B, n_i)."""
    kept = [(v > 0).to(v.dtype) for v in g]
    counts = [k.sum(-1, keepdim=True) for k in kept]
    total = reduce(mul, counts).clamp(min=1)
    return [k * (count / total) for k, count in zip(kept, counts, strict=True)]


def _pass(
    second_moment: Tensor, g: Sequence[Tensor], weights: Sequence[Tensor], couple: Couple
) -> tuple[Tensor, ...]:
    """L is contracted with 1 / g_i along its first axis as soon as g_i is new.

    A row times a matrix takes a batched product half the time, or less, of a matrix times a column.
    """
    new: list[Tensor] = []
    inverses = [reciprocal(v).unsqueeze(-2) for v in g]
    rest = second_moment
    for i, v in enumerate(g):
        summed = rest
        for inverse in reversed(inverses[i + 1 :]):
            n = inverse.shape[-1]
            summed = torch.bmm(inverse, summed.reshape(len(v), summed.shape[1:].numel() // n, n).mT)
        new.append(couple(i, summed.reshape(v.shape) * weights[i]))
        if i + 1 < len(g):
            onto = reciprocal(new[i]).unsqueeze(-2)
            n = v.shape[-1]
            rest = torch.bmm(onto, rest.reshape(len(v), n, rest.shape[1:].numel() // n))
    return tuple(new)


def alternate(
    second_moment: Tensor,
    g: tuple[Tensor, ...],
    sweeps: int,
    tolerance: float,
    relative: bool,
    stop_early: bool,
    couple: Couple = uncoupled,
    divergence: float = math.inf,
) -> tuple[Tensor, ...]:
    """Normalised sweeps until kron(g) moves by less than `tolerance` in norm, at most `sweeps`.

    Batch members that have settled keep their g; `stop_early` ends the loop once all have. A member whose next
    sweep would move kron(g) by more than `divergence` stays where it is.

    >>> L = torch.tensor([[2.0, 4.0, 6.0, 12.0]])
    >>> g = alternate(L, (torch.ones(1, 2), torch.ones(1, 2)), 10, 1e-5, True, True)
    >>> torch.kron(*g)
    tensor([[ 2.,  4.,  6., 12.]])
    """
    moving = torch.ones_like(g[0][:, :1], dtype=torch.bool)
    weights = _weights(g)
    for _ in range(sweeps):
        new = normalise(_pass(second_moment, g, weights, couple))
        distance = kron_distance(new, g, relative).unsqueeze(-1)
        still, moving = distance >= tolerance, moving & (distance <= divergence)
        g = tuple(torch.where(moving, u, v) for u, v in zip(new, g, strict=True))
        moving = moving & still
        if stop_early and not bool(moving.any()):
            break
    return g
