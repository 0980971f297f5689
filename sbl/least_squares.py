"""Least squares on a chosen support, for the greedy methods and the oracle."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..kernels import kron_matvec
from .algebra import reciprocal, squared_modulus
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


def point_estimate(problem: Problem, x: Tensor, iterations: Tensor, ended: Tensor) -> Estimate:
    """An estimate without a posterior: no variance, and |x|^2 for the single hyper-parameter.

    An unknown noise variance is reported as the mean square of the residual.
    """
    residual = squared_modulus(problem.y - kron_matvec(list(problem.factors), x)).mean(-1)
    noise = residual if problem.noise_variance is None else problem.noise_variance
    batch = problem.batch
    mean = x.reshape(*batch, *problem.lengths)
    power = squared_modulus(x).reshape(*batch, x.shape[-1])
    return Estimate(
        mean=mean,
        variance=torch.zeros_like(mean.real),
        hyperparameters=(power,),
        noise_variance=noise.reshape(batch),
        iterations=iterations.reshape(batch),
        ended=ended.reshape(batch),
        residual_to_noise=(residual * reciprocal(noise)).reshape(batch),
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
