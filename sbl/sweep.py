"""Alternating updates of Kronecker-structured prior variances, which AM-KroSBL, KSBL and PC-KroSBL share."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sbl.algebra import kron_distance, kron_vectors, reciprocal
from sbl.em import normalise

Couple = Callable[[int, Tensor], Tensor]


def uncoupled(factor: int, g: Tensor) -> Tensor:
    """Entries of a prior without neighbours."""
    return g


def sweep(second_moment: Tensor, g: Sequence[Tensor], couple: Couple = uncoupled) -> tuple[Tensor, ...]:
    """One pass over the factors, each update using the newest others.

        g_i[n] = couple_i( (1 / prod_{j != i} N_j) sum over the other modes of L / prod_{j != i} g_j )

    second_moment: L, (B, n_1 ... n_I). g: (B, n_i), zero where pruned; N_j counts the entries that are not.

    >>> sweep(torch.tensor([[2.0, 4.0, 6.0, 12.0]]), [torch.ones(1, 2), torch.ones(1, 2)])
    (tensor([[3., 9.]]), tensor([[0.6667, 1.3333]]))
    """
    counts = [(v > 0).sum(-1, keepdim=True) for v in g]
    total = torch.stack(counts).prod(0).clamp(min=1)
    later = [second_moment]
    for v in reversed(g[1:]):
        later.append((later[-1].reshape(len(v), -1, v.shape[-1]) @ reciprocal(v).unsqueeze(-1)).squeeze(-1))
    earlier = torch.ones_like(g[0][:, :1])
    new = []
    for i, (v, contracted) in enumerate(zip(g, reversed(later), strict=True)):
        summed = (earlier.unsqueeze(-2) @ contracted.reshape(len(v), -1, v.shape[-1])).squeeze(-2)
        updated = couple(i, summed * (counts[i] / total)) * (v > 0)
        new.append(updated)
        earlier = kron_vectors([earlier, reciprocal(updated)])
    return tuple(new)


def alternate(
    second_moment: Tensor,
    g: tuple[Tensor, ...],
    sweeps: int,
    tolerance: float,
    relative: bool,
    stop_early: bool,
    couple: Couple = uncoupled,
) -> tuple[Tensor, ...]:
    """Normalised sweeps until kron(g) moves by less than `tolerance` in norm, at most `sweeps`.

    Batch members that have settled keep their g; `stop_early` ends the loop once all have.

    >>> L = torch.tensor([[2.0, 4.0, 6.0, 12.0]])
    >>> g = alternate(L, (torch.ones(1, 2), torch.ones(1, 2)), 10, 1e-5, True, True)
    >>> kron_vectors(g)
    tensor([[ 2.,  4.,  6., 12.]])
    """
    moving = torch.ones_like(g[0][:, :1], dtype=torch.bool)
    for _ in range(sweeps):
        new = normalise(sweep(second_moment, g, couple))
        still = kron_distance(new, g, relative).unsqueeze(-1) >= tolerance
        g = tuple(torch.where(moving, u, v) for u, v in zip(new, g, strict=True))
        moving = moving & still
        if stop_early and not bool(moving.any()):
            break
    return g
