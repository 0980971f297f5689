"""Where an EM run stands: a batch of problems with their current prior variances."""

import math
from functools import reduce
from operator import mul
from typing import NamedTuple

import torch
from torch import Tensor

from ..algebra import reciprocal, squared_modulus
from ..problem import Problem


class State(NamedTuple):
    """B problems: factors (B or 1, M_i, n_i), y (B, M), noise_variance (B,), prior variances g.

    g holds (B, n_i) for each factor, or one (B, N) for an unstructured prior; zero means pruned, for good.
    positions holds the original position of each entry of g. dense: no entry of g is zero, or it is not known.
    sources: where g_i = C_i sources_i couples entries, what lies behind g; else empty.
    sharp: how many M-steps are to come that fit L itself; see `SVDKroSBL`.
    """

    factors: tuple[Tensor, ...]
    y: Tensor
    noise_variance: Tensor
    g: tuple[Tensor, ...]
    positions: tuple[Tensor, ...]
    dense: bool = False
    sources: tuple[Tensor, ...] = ()
    sharp: int = 0

    def take(self, members: Tensor) -> "State":
        """The problems that a (B,) mask or a list of indices picks."""
        return State(
            tuple(f if f.shape[0] == 1 else f[members] for f in self.factors),
            self.y[members],
            self.noise_variance[members],
            tuple(g[members] for g in self.g),
            tuple(p[members] for p in self.positions),
            self.dense,
            tuple(s[members] for s in self.sources),
            self.sharp,
        )


def initial_state(problem: Problem, g: tuple[Tensor, ...]) -> State:
    """Every entry kept; an unknown noise variance begins at a tenth of y's sample variance.

    A known one is at least the rounding of y, eps times its mean power: below, the prior variances of
    AM-KroSBL would follow rounding errors.
    """
    y = problem.y
    noise = problem.noise_variance
    if noise is None:
        noise = 0.1 * y.var(-1) if y.shape[-1] > 1 else 0.1 * squared_modulus(y).sum(-1)
    else:
        rounding = torch.finfo(noise.dtype).eps * squared_modulus(y).mean(-1)
        noise = torch.maximum(noise, rounding.detach())
    positions = tuple(torch.arange(v.shape[-1], device=y.device).expand(v.shape) for v in g)
    return State(problem.factors, y, noise, g, positions)


class Pruning(NamedTuple):
    """Which entries of g are dropped; see `prune`."""

    ratios: tuple[float, ...]
    negligible: float
    faint: float
    floor: float


def prune(state: State, pruning: Pruning) -> State:
    """Zero the entries below `floor`, and those that are small beside others and against the noise:

        g_i[n] < ratio_i max g_i   and   g_i[n] prod_{j != i} max g_j < negligible s2.

    Where columns have norm one, no x under such an entry has a prior variance, and adds to y an expected energy,
    of `negligible` s2. The ratios stand alone where `negligible` is infinite and where s2 <= faint: nothing is
    small against no noise.
    """
    ratios, negligible, faint, floor = pruning
    if floor == 0 and not any(ratios):
        return state
    largest = [g.detach().amax(-1, keepdim=True) for g in state.g]
    noise = state.noise_variance.detach().unsqueeze(-1)
    lost = (negligible * noise * reciprocal(reduce(mul, largest))).masked_fill(noise <= faint, math.inf)
    kept = []
    for g, most, ratio in zip(state.g, largest, ratios, strict=True):
        share = lost.clamp(max=ratio) if negligible < math.inf else ratio
        limit = share * most
        kept.append(g * (g >= (limit.clamp(min=floor) if floor else limit)))
    return keep(state, tuple(kept))


def keep(state: State, g: tuple[Tensor, ...]) -> State:
    """The state with prior variances g; what lies behind those that are zero becomes zero."""
    sources = tuple(s * (v > 0) for s, v in zip(state.sources, g, strict=False))
    return state._replace(g=g, sources=sources)


def shrink(state: State) -> State:
    """Drop pruned entries: each factor keeps as many columns as its fullest batch member needs.

    Each member keeps columns of its own, in their order, so a batch costs what its members would alone.
    """
    full = [int(torch.count_nonzero(g)) == g.numel() for g in state.g]
    if all(full):
        return state._replace(dense=True)
    factors, gs, positions = list(state.factors), list(state.g), list(state.positions)
    sources = list(state.sources)
    for i, g in enumerate(gs):
        if full[i]:
            continue
        kept = g > 0
        width = max(1, int(kept.sum(-1).amax()))
        if width < g.shape[-1]:
            order = kept.byte().argsort(dim=-1, descending=True, stable=True)[:, :width]
            gs[i], positions[i] = g.gather(-1, order), positions[i].gather(-1, order)
            if sources:
                sources[i] = sources[i].gather(-1, order)
            factor = factors[i].expand(g.shape[0], -1, -1)
            factors[i] = factor.gather(-1, order.unsqueeze(-2).expand(-1, factor.shape[-2], -1))
    return state._replace(
        factors=tuple(factors),
        g=tuple(gs),
        positions=tuple(positions),
        dense=len(state.y) == 1,
        sources=tuple(sources),
    )
