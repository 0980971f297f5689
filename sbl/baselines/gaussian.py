"""The posterior of a Gaussian vector that is seen through a Kronecker-structured matrix.

y = (B_1 kron ... kron B_I) z + noise,  z ~ N(0, I),  B_i = U_i diag(s_i) V_i^H,  P = kron s_i^2
mean of z  = (kron V_i) (sqrt(P) / (s2 + P)) (kron U_i^H) y
covariance = I - (kron V_i) diag(P / (s2 + P)) (kron V_i^H)
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...kernels import kron_matvec
from ..algebra import kron_vectors, reciprocal, squared_modulus

# Of the search for a noise variance: points of a grid, then bisections between two of them.
LEVELS, BISECTIONS = 128, 50


class GaussianPosterior(NamedTuple):
    """V: V_i (B or 1, r_i, k_i); P: (B or 1, k); z: (B, k), (kron U_i^H) y; noise: (B,)."""

    V: tuple[Tensor, ...]
    P: Tensor
    z: Tensor
    noise: Tensor

    def mean(self, roots: Sequence[Tensor]) -> Tensor:
        """That of x = (kron L_i) z: (B, N)."""
        weights = self.P.sqrt() * reciprocal(self.noise.unsqueeze(-1) + self.P)
        return kron_matvec([L @ V for L, V in zip(roots, self.V, strict=True)], weights * self.z)

    def variance(self, roots: Sequence[Tensor]) -> Tensor:
        """The variances of x = (kron L_i) z: (B, N)."""
        prior = kron_vectors([squared_modulus(L).sum(-1) for L in roots])
        seen = self.P * reciprocal(self.noise.unsqueeze(-1) + self.P)
        shares = [squared_modulus(L @ V) for L, V in zip(roots, self.V, strict=True)]
        return (prior - kron_matvec(shares, seen)).clamp(min=0)


def gaussian_posterior(
    mixed: Sequence[Tensor], y: Tensor, noise_variance: Tensor | None
) -> GaussianPosterior:
    """The posterior of z of y (B, M) = (kron mixed_i) z + noise, mixed_i (B or 1, M_i, r_i).

    An unknown noise variance is that of the greatest likelihood, at least the rounding of y.

    >>> found = gaussian_posterior([torch.eye(1)[None]], torch.tensor([[2.0]]), torch.tensor([1.0]))
    >>> one = [torch.ones(1, 1, 1)]
    >>> found.mean(one), found.variance(one)
    (tensor([[1.]]), tensor([[0.5000]]))
    """
    U, s, Vh = zip(*(torch.linalg.svd(B, full_matrices=False) for B in mixed), strict=True)
    P = kron_vectors([part.square() for part in s])
    z = kron_matvec([u.mH for u in U], y)
    power, M = squared_modulus(y).sum(-1), y.shape[-1]
    least = torch.finfo(power.dtype).eps * power / M
    if noise_variance is None:
        noise_variance = _likeliest_noise(P, squared_modulus(z), power, M, least)
    return GaussianPosterior(tuple(v.mH for v in Vh), P, z, torch.maximum(noise_variance, least))


def _likeliest_noise(P: Tensor, energy: Tensor, power: Tensor, M: int, least: Tensor) -> Tensor:
    """argmin over s2 of sum_k (log(s2 + P_k) + energy_k / (s2 + P_k)) + (M - k) log s2 + outside / s2.

    Its slope over log s2 turns upwards at each minimum; the lowest of those that a grid shows, by bisection.
    """
    others = M - P.shape[-1]
    outside = (power - energy.sum(-1)).clamp(min=0) if others else torch.zeros_like(power)
    silent = power == 0
    lowest, highest = (bound.masked_fill(silent, 1).log() for bound in (least, 2 * power))
    step = (highest - lowest) / (LEVELS - 1)

    def cost(level: Tensor) -> Tensor:
        total = level.exp().unsqueeze(-1) + P
        return (total.log() + energy / total).sum(-1) + others * level + outside / level.exp()

    def falls(level: Tensor) -> Tensor:
        share = level.exp().unsqueeze(-1) / (level.exp().unsqueeze(-1) + P)
        explained = energy * share.square() / level.exp().unsqueeze(-1)
        return (share - explained).sum(-1) + others < outside / level.exp()

    left, right, fell = lowest, lowest, falls(lowest)
    at_best = cost(lowest).masked_fill(fell, math.inf)
    for i in range(1, LEVELS):
        level = lowest + i * step
        before, fell, at_level = fell, falls(level), cost(level)
        better = before & ~fell & (at_level < at_best)
        left, right = torch.where(better, level - step, left), torch.where(better, level, right)
        at_best = torch.where(better, at_level, at_best)
    for _ in range(BISECTIONS):
        middle = (left + right) / 2
        fell = falls(middle)
        left, right = torch.where(fell, middle, left), torch.where(fell, right, middle)
    return right.exp().masked_fill(silent, 0)
