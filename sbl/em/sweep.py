"""Alternating updates of Kronecker-structured prior variances, which AM-KroSBL, KSBL and PC-KroSBL share.

As published, a pass takes expectation-maximisation's M-step one factor after the other. By default it lowers, one
factor after the other, the bound

    sum_n |mean_n|^2 / (kron g)_n + gain_n (kron g)_n + constants  >=  marginal cost,   gain = diag(A^H K^-1 A),

which touches the cost at the current g: log det K is concave in kron g, and y^H K^-1 y is the least, over x, of
||y - A x||^2 / s2 + sum |x_n|^2 / (kron g)_n. Its minimiser over one factor is a square root, and where entries
are small it moves them by a factor each time; expectation-maximisation crawls there.
Source of the bound: Wipf and Nagarajan, IEEE J. Selected Topics in Signal Processing 2010, section III.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce
from operator import mul

import torch
from torch import Tensor

from ..algebra import kron_distance, reciprocal, root
from .loop import normalise

Couple = Callable[[int, Tensor], Tensor]
Variances = tuple[Tensor, ...]


def uncoupled(factor: int, g: Tensor) -> Tensor:
    """Entries of a prior without neighbours."""
    return g


def sweep(second_moment: Tensor, g: Sequence[Tensor], couple: Couple = uncoupled) -> Variances:
    """One pass over the factors, each update using the newest others.

        g_i[n] = couple_i( (1 / prod_{j != i} N_j) sum over the other modes of L / prod_{j != i} g_j )

    second_moment: L, (B, n_1 ... n_I), zero where an entry is pruned. g: (B, n_i), zero where pruned; N_j
    counts the entries that are not. `couple` leaves pruned entries at zero.

    >>> sweep(torch.tensor([[2.0, 4.0, 6.0, 12.0]]), [torch.ones(1, 2), torch.ones(1, 2)])
    (tensor([[3., 9.]]), tensor([[0.6667, 1.3333]]))
    """
    return _pass(second_moment, g, _weights(g), couple)


def bound_sweep(
    power: Tensor, gain: Tensor, sources: Sequence[Tensor], couplings: Sequence[Tensor | None]
) -> Variances:
    """One pass over the factors that lowers the bound at g_i = C_i s_i, each update using the newest others.

        s_i <- s_i sqrt( C_i^T (a / g_i^2) / C_i^T b ),
        a = sum over the other modes of |mean|^2 / prod_{j != i} g_j,   b = that of gain prod_{j != i} g_j

    which for C_i = I is g_i = sqrt(a / b). A positive s keeps a share eps^2 of its factor's largest at least.

    power, gain: |mean|^2 and diag(A^H K^-1 A), (B, n_1 ... n_I). sources: s_i (B, n_i), zero where pruned.
    couplings: C_i (B, n_i, n_i), non-negative, or None for the identity.

    >>> one = torch.ones(1, 2)
    >>> bound_sweep(torch.tensor([[4.0, 16.0, 4.0, 16.0]]), torch.ones(1, 4), [one, one], [None, None])
    (tensor([[3.1623, 3.1623]]), tensor([[0.6325, 1.2649]]))
    """
    new: list[Tensor] = []
    g = [coupled(C, s) for C, s in zip(couplings, sources, strict=True)]
    downs, ups = _Contraction(power, [reciprocal(v) for v in g]), _Contraction(gain, g)
    for i, (C, s) in enumerate(zip(couplings, sources, strict=True)):
        a, b = downs.others(i), ups.others(i)
        if C is None:
            moved = root(a * reciprocal(b))
        else:
            pulled = a * reciprocal(g[i]).square()
            moved = s * root(_transposed(C, pulled) * reciprocal(_transposed(C, b)))
        least = torch.finfo(s.dtype).eps ** 2 * moved.amax(-1, keepdim=True)
        new.append(torch.maximum(moved, least) * (s > 0))
        latest = coupled(C, new[i])
        downs.take(i, reciprocal(latest))
        ups.take(i, latest)
    return tuple(new)


def coupled(C: Tensor | None, s: Tensor) -> Tensor:
    """C s of (B, n, n) and (B, n); s where C is None."""
    return s if C is None else torch.bmm(C, s.unsqueeze(-1)).squeeze(-1)


def _transposed(C: Tensor, x: Tensor) -> Tensor:
    return torch.bmm(x.unsqueeze(-2), C).squeeze(-2)


class _Contraction:
    """Sums of T (B, n_1 ... n_I) against vectors v_j (B, n_j) along every mode but one, from the first mode on.

    T is contracted along its first mode as soon as that mode's vector is new. A row times a matrix takes a
    batched product half the time, or less, of a matrix times a column.
    """

    def __init__(self, T: Tensor, vectors: Sequence[Tensor]) -> None:
        self.rest, self.rows = T, [v.unsqueeze(-2) for v in vectors]

    def others(self, i: int) -> Tensor:
        """The sums over all modes but i, the earlier ones against what they were last given: (B, n_i)."""
        summed = self.rest
        for row in reversed(self.rows[i + 1 :]):
            n = row.shape[-1]
            summed = torch.bmm(row, summed.reshape(len(row), summed.shape[1:].numel() // n, n).mT)
        return summed.reshape(len(summed), self.rows[i].shape[-1])

    def take(self, i: int, vector: Tensor) -> None:
        """Contract mode i, now the first, with its new vector."""
        if i + 1 < len(self.rows):
            n = vector.shape[-1]
            rest = self.rest.reshape(len(vector), n, self.rest.shape[1:].numel() // n)
            self.rest = torch.bmm(vector.unsqueeze(-2), rest)


def _weights(g: Sequence[Tensor]) -> list[Tensor]:
    """1 / prod_{j != i} N_j for the entries of g_i that are kept, 0 for the others: (B, n_i)."""
    kept = [(v > 0).to(v.dtype) for v in g]
    counts = [k.sum(-1, keepdim=True) for k in kept]
    total = reduce(mul, counts).clamp(min=1)
    return [k * (count / total) for k, count in zip(kept, counts, strict=True)]


def _pass(second_moment: Tensor, g: Sequence[Tensor], weights: Sequence[Tensor], couple: Couple) -> Variances:
    new: list[Tensor] = []
    sums = _Contraction(second_moment, [reciprocal(v) for v in g])
    for i, weight in enumerate(weights):
        new.append(couple(i, sums.others(i) * weight))
        sums.take(i, reciprocal(new[i]))
    return tuple(new)


def alternate(
    second_moment: Tensor,
    g: Variances,
    sweeps: int,
    tolerance: float,
    relative: bool,
    stop_early: bool,
    couple: Couple = uncoupled,
    divergence: float = math.inf,
) -> Variances:
    """Normalised sweeps until kron(g) moves by less than `tolerance` in norm, at most `sweeps`.

    Batch members that have settled keep their g; `stop_early` ends the loop once all have. A member whose next
    sweep would move kron(g) by more than `divergence` stays where it is.

    >>> L = torch.tensor([[2.0, 4.0, 6.0, 12.0]])
    >>> g = alternate(L, (torch.ones(1, 2), torch.ones(1, 2)), 10, 1e-5, True, True)
    >>> torch.kron(*g)
    tensor([[ 2.,  4.,  6., 12.]])
    """
    weights = _weights(g)

    def once(g: Variances) -> Variances:
        return _pass(second_moment, g, weights, couple)

    def distance(new: Variances, old: Variances) -> Tensor:
        return kron_distance(new, old, relative)

    return _repeated(once, distance, g, sweeps, tolerance, stop_early, divergence)


def lower_bound(
    power: Tensor,
    gain: Tensor,
    sources: Variances,
    couplings: Sequence[Tensor | None],
    sweeps: int,
    tolerance: float,
    relative: bool,
    stop_early: bool,
) -> Variances:
    """Normalised `bound_sweep`s until kron(g) moves by less than `tolerance` in norm, at most `sweeps`.

    >>> power, one = torch.tensor([[1.0, 4.0, 4.0, 16.0]]), torch.ones(1, 2)
    >>> g = lower_bound(power, torch.ones(1, 4), (one, one), (None, None), 10, 1e-5, True, True)
    >>> torch.kron(*g).round(decimals=3)
    tensor([[1., 2., 2., 4.]])
    """

    def once(sources: Variances) -> Variances:
        return bound_sweep(power, gain, sources, couplings)

    def distance(new: Variances, old: Variances) -> Tensor:
        new, old = (tuple(map(coupled, couplings, s)) for s in (new, old))
        return kron_distance(new, old, relative)

    return _repeated(once, distance, sources, sweeps, tolerance, stop_early)


def _repeated(
    once: Callable[[Variances], Variances],
    distance: Callable[[Variances, Variances], Tensor],
    g: Variances,
    sweeps: int,
    tolerance: float,
    stop_early: bool,
    divergence: float = math.inf,
) -> Variances:
    moving = torch.ones_like(g[0][:, :1], dtype=torch.bool)
    for _ in range(sweeps):
        new = normalise(once(g))
        moved = distance(new, g).unsqueeze(-1)
        still, moving = moved >= tolerance, moving & (moved <= divergence)
        g = tuple(torch.where(moving, u, v) for u, v in zip(new, g, strict=True))
        moving = moving & still
        if stop_early and not bool(moving.any()):
            break
    return g
