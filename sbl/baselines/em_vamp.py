"""Vector approximate message passing with a Bernoulli-Gaussian prior that it learns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels import kron_matvec
from ..algebra import kron_vectors, squared_modulus
from ..em.units import double, unit_power
from ..estimate import Estimate
from ..problem import Problem, pose
from .answer import answer

# Precisions of messages, of x at unit power.
LEAST, MOST = 1e-6, 1e12
# The least share of nonzeros, and of the noise in y.
LEAST_SHARE, LEAST_NOISE = 1e-6, 1e-12


@dataclass(frozen=True, kw_only=True)
class EMVAMP:
    """Entries of x are zero but for a share l, and N(0, p) there; l, p and an unknown s2 are learned.

    With A = U S V^H and the message x ~ N(r2, 1 / g2), the linear stage and its extrinsic message are

        x2 = r2 + V (S^2 / (S^2 + s2 g2)) (S^-1 U^H y - V^H r2),   e2 = g2 / (1 - mean(S^2 / (S^2 + s2 g2))),
        g1 = e2 - g2,   r1 = (e2 x2 - g2 r2) / g1

    (the mean over all N entries), and the denoising stage, the posterior mean x1 and variance v of an entry seen
    as r1 = x + N(0, 1 / g1), with e1 = 1 / mean(v), gives

        g2 = e1 - g1,   r2 = x1 + (x1 - r1) g1 / g2.

    Then l = mean(pi), p = sum pi E[|x|^2 | not zero] / sum pi, pi the posterior share of a nonzero; s2 follows
    from the linear stage. r2 and log g2 move by `damping` of their way. The factors' singular value
    decompositions are all that it needs. A problem has settled when x1 moves by less than `tolerance` of its norm.
    VAMP's theory is that of matrices without structure. On Kronecker products of few small factors it often does
    not settle, which `ended` says, or diverges; the answer is the x1 that was closest to its x2, as both are one
    where it settles.
    Source: Rangan, Schniter and Fletcher, "Vector approximate message passing", IEEE Trans. Information Theory
    2019; EM: Fletcher and Schniter, "Learning and free energies for vector approximate message passing", 2017.

    >>> A = [torch.eye(4, dtype=torch.float64), torch.eye(5, dtype=torch.float64)]
    >>> y = torch.zeros(20, dtype=torch.float64).index_fill(0, torch.tensor(7), 5.0)
    >>> EMVAMP()(A, y, 1e-4).mean[1].round(decimals=2)
    tensor([0., 0., 5., 0., 0.], dtype=torch.float64)
    """

    max_iterations: int = 400
    tolerance: float = 1e-6
    damping: float = 0.1

    def __post_init__(self) -> None:
        if self.max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, got {self.max_iterations}")
        if not 0 < self.damping <= 1:
            raise ValueError(f"damping must be above 0 and at most 1, got {self.damping}")
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance must not be negative, got {self.tolerance}")

    def __call__(
        self, factors: Sequence[Tensor], y: Tensor, noise_variance: Tensor | float | None = None
    ) -> Estimate:
        """Estimate x (..., N_1, ..., N_I) and its variances from y (..., M).

        Raises:
            ValueError: an argument has a wrong shape, a NaN, or a negative variance; the message names it.
        """
        given = pose(factors, y, noise_variance)
        problem, amplitude = unit_power(double(given))
        seen, power = _decomposed(problem)
        state = _initial(problem)
        best = state
        alive = torch.ones(len(problem.y), dtype=torch.bool, device=y.device)
        iterations = torch.zeros(len(problem.y), dtype=torch.long, device=y.device)
        for _ in range(self.max_iterations):
            new = _iterate(state, seen, problem.noise_variance is None, self.damping)
            moved = torch.linalg.vector_norm(new.x - state.x, dim=-1)
            settled = moved <= self.tolerance * torch.linalg.vector_norm(new.x, dim=-1)
            state = _where(alive, new, state)
            best = _where(state.apart <= best.apart, state, best)
            iterations += alive
            alive = alive & ~settled
            if not bool(alive.any()):
                break
        unit = amplitude * power.sqrt()
        noise = best.noise * amplitude.square() if given.noise_variance is None else given.noise_variance
        return answer(
            given,
            best.x * unit.unsqueeze(-1),
            best.variance * unit.square().unsqueeze(-1),
            noise.double(),
            iterations,
            ~alive,
        )


class _Seen(NamedTuple):
    """U^H y (B, k), what of ||y||^2 is outside of U (B,), S (B or 1, k), V_i, and M."""

    z: Tensor
    outside: Tensor
    S: Tensor
    V: tuple[Tensor, ...]
    measurements: int


class _State(NamedTuple):
    """The linear stage's message r, 1 / variance g; l, p, s2; x, its variance, and ||x1 - x2||^2 (B,)."""

    r: Tensor
    g: Tensor
    share: Tensor
    power: Tensor
    noise: Tensor
    x: Tensor
    variance: Tensor
    apart: Tensor


def _decomposed(problem: Problem) -> tuple[_Seen, Tensor]:
    """What is seen, in the unit in which an entry of x has about unit power, and that power."""
    U, s, Vh = zip(*(torch.linalg.svd(A, full_matrices=False) for A in problem.factors), strict=True)
    S, M = kron_vectors(list(s)), problem.y.shape[-1]
    energy = S.square().sum(-1)
    power = torch.where(energy > 0, M / energy, 1)
    z = kron_matvec([u.mH for u in U], problem.y)
    outside = (squared_modulus(problem.y).sum(-1) - squared_modulus(z).sum(-1)).clamp(min=0)
    return _Seen(z, outside, S * power.sqrt().unsqueeze(-1), tuple(v.mH for v in Vh), M), power


def _initial(problem: Problem) -> _State:
    y, N = problem.y, math.prod(problem.lengths)
    zero, one = torch.zeros(len(y), N, dtype=y.dtype, device=y.device), torch.ones_like(y[:, 0].real)
    share = one * min(0.5, 0.1 * y.shape[-1] / N)
    noise = problem.noise_variance
    noise = 0.1 * one if noise is None else noise.clamp(min=LEAST_NOISE)
    return _State(zero, one, share, 1 / share, noise, zero, torch.ones_like(zero.real), one * math.inf)


def _iterate(old: _State, seen: _Seen, noise_unknown: bool, damping: float) -> _State:
    N = old.r.shape[-1]
    s2, g = old.noise, old.g
    square = seen.S.square()
    kept = square / (square + (s2 * g).unsqueeze(-1))
    back = seen.S / (square + (s2 * g).unsqueeze(-1))
    projected = kron_matvec([V.mH for V in seen.V], old.r)
    x = old.r + kron_matvec(list(seen.V), back * seen.z - kept * projected)
    e = g / (1 - kept.sum(-1) / N).clamp(min=LEAST)
    g1 = (e - g).clamp(LEAST, MOST)
    r1 = (e.unsqueeze(-1) * x - g.unsqueeze(-1) * old.r) / g1.unsqueeze(-1)
    pi, within, spread = _denoised(r1, g1, old)
    mean = pi * within
    second = squared_modulus(within) + spread.unsqueeze(-1)
    variance = pi * second - squared_modulus(mean)
    e1 = 1 / variance.mean(-1).clamp(1 / MOST, 1 / LEAST)
    g2 = g * ((e1 - g1).clamp(LEAST, MOST) / g) ** damping
    r2 = mean + (g1 / g2).unsqueeze(-1) * (mean - r1)
    r2 = old.r + damping * (r2 - old.r)
    count = pi.sum(-1).clamp(min=LEAST_SHARE)
    if noise_unknown:
        left = seen.z - seen.S * (projected + (back * seen.z - kept * projected))
        residual = squared_modulus(left).sum(-1) + seen.outside
        s2 = ((residual + s2 * kept.sum(-1)) / seen.measurements).clamp(min=LEAST_NOISE)
    return _State(
        r2,
        g2,
        (count / N).clamp(LEAST_SHARE, 1 - LEAST_SHARE),
        ((pi * second).sum(-1) / count).clamp(min=LEAST_SHARE),
        s2,
        mean,
        variance.clamp(min=0),
        squared_modulus(mean - x).sum(-1),
    )


def _denoised(r: Tensor, g: Tensor, prior: _State) -> tuple[Tensor, Tensor, Tensor]:
    """pi (B, N), and where x is not zero its mean (B, N) and variance (B,), of x seen as r = x + N(0, 1 / g)."""
    noise, total = 1 / g, prior.power + 1 / g
    half = 1.0 if r.is_complex() else 0.5
    odds = (prior.share / (1 - prior.share)).log() + half * (noise / total).log()
    gained = half * (1 / noise - 1 / total).unsqueeze(-1) * squared_modulus(r)
    pi = torch.sigmoid(odds.unsqueeze(-1) + gained)
    return pi, (prior.power / total).unsqueeze(-1) * r, prior.power * noise / total


def _where(members: Tensor, new: _State, old: _State) -> _State:
    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(members.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return _State(*(pick(a, b) for a, b in zip(new, old, strict=True)))
