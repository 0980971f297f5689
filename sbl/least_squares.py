"""Least squares on a chosen support, for the greedy methods and the oracle."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..kernels import kron_matvec
from .algebra import reciprocal, squared_modulus
from .em.units import Units
from .estimate import Estimate
from .problem import Problem


def kronecker_least_squares(factors: Sequence[Tensor], chosen: Sequence[Tensor], y: Tensor) -> Tensor:
    """Least squares of minimum norm on a Kronecker support: x = (kron pinv(A_i restricted)) y.

    factors: (B or 1, M_i, N_i); chosen: (B, N_i) booleans; y: (B, M). Returns (B, N), zero off the support.

    >>> kronecker_least_squares([2 * torch.eye(3)[None]], [torch.tensor([[True, False, True]])], torch.ones(1, 3))
    tensor([[0.5000, 0.0000, 0.5000]])
    """
    restricted = [A * kept.unsqueeze(-2) for A, kept in zip(factors, chosen, strict=True)]
    return kron_matvec([torch.linalg.pinv(A) for A in restricted], y)


def point_estimate(
    problem: Problem, x: Tensor, iterations: Tensor, ended: Tensor, unknowns: Tensor, units: Units
) -> Estimate:
    """An estimate without a posterior, in the units of the data: no variance, |x|^2 for the one hyper-parameter.

    An unknown noise variance is what least squares in `unknowns` (B,) numbers leaves: ||r||^2 / (M - unknowns).
    """
    M, batch = problem.y.shape[-1], problem.batch
    residual = squared_modulus(problem.y - kron_matvec(list(problem.factors), x)).sum(-1)
    noise = problem.noise_variance
    if noise is None:
        noise = residual / (M - unknowns).clamp(min=1)
    whole = units.whole(x)
    mean = whole.reshape(*batch, *problem.lengths)
    return Estimate(
        mean=mean,
        variance=torch.zeros_like(mean.real),
        hyperparameters=(squared_modulus(whole).reshape(*batch, whole.shape[-1]),),
        noise_variance=units.noise(noise).reshape(batch),
        iterations=iterations.reshape(batch),
        ended=ended.reshape(batch),
        residual_to_noise=(residual * reciprocal(noise) / M).to(mean.real.dtype).reshape(batch),
    )


def residual_limit(problem: Problem) -> Tensor:
    """Energy below which a greedy method has explained y: (B,).

    White noise in M samples stays below s2 (M + 2 sqrt(M log M)) with probability 1 - 1/M or more
    (Cai and Wang, IEEE Trans. Information Theory 2011); rounding's share of y is the least.
    """
    energy = squared_modulus(problem.y).sum(-1)
    rounding = energy * torch.finfo(energy.dtype).eps
    if problem.noise_variance is None:
        return rounding
    M = problem.y.shape[-1]
    return torch.maximum(rounding, (M + 2 * math.sqrt(M * math.log(M))) * problem.noise_variance)


def description_length(problem: Problem, x: Tensor, unknowns: Tensor, choices: Tensor) -> Tensor:
    """What to choose among supports by where the noise variance is not known; the least is the best: (B,).

        n log ||y - A x||^2 + d log n + 2 choices

    n real measurements, d real unknowns, and the logarithm of the number of supports as large, for which k log N
    stands: the extended Bayesian information criterion of Chen and Chen, Biometrika 2008.

    x: (B, N), least squares on a support; unknowns: (B,), its entries; choices: (B,).
    """
    energy = squared_modulus(problem.y).sum(-1)
    residual = squared_modulus(problem.y - kron_matvec(list(problem.factors), x)).sum(-1)
    eps = torch.finfo(energy.dtype).eps
    least = (energy * eps**2).clamp(min=torch.finfo(energy.dtype).tiny)
    real = 2 if problem.y.is_complex() else 1
    n = real * problem.y.shape[-1]
    return n * torch.maximum(residual, least).log() + real * unknowns * math.log(n) + 2 * choices
