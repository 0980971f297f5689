"""Estimators that are told more than factors, observations and noise, and the bounds of both experiments."""

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..baselines.bounds import bilinear_bound, genie_bound
from ..baselines.genie_mmse import GenieMMSE
from ..baselines.lmmse import LMMSE, sample_root
from ..estimators.oracle_ls import OracleLS
from ..systems.irs_coefficients import (
    coefficient_variances,
    coefficients,
    gain_responses,
    prior_variances,
    require_grid,
)
from ..systems.irs_mimo import IRSMIMO, Rays, Training
from ..systems.synthetic import SyntheticProblem, draw_synthetic
from .seeds import trial_generator
from .shards import BOUND

if TYPE_CHECKING:
    from .experiments import SyntheticExperiment

SYNTHETIC_REFERENCES = ("OLS", "LMMSE", "sLMMSE", "genie", BOUND)
IRS_REFERENCES = ("LMMSE", "sLMMSE", "genie", BOUND)
# Draws of x that a sample covariance is of.
COVARIANCE_DRAWS = 600


def synthetic_reference(
    name: str, experiment: "SyntheticExperiment", problem: SyntheticProblem, seed: int
) -> Any:
    """OLS, LMMSE, sLMMSE or genie, for these problems of the synthetic experiment."""
    if name == "OLS":
        return OracleLS(problem.support)
    if name == "genie":
        return GenieMMSE(_variances(problem))
    if name == "LMMSE":
        share = experiment.sparsity
        return LMMSE([math.sqrt(share / n) * torch.eye(n) for n in experiment.columns])
    return LMMSE([_synthetic_root(experiment.rows, experiment.columns, experiment.sparsity, seed)])


def synthetic_bound(problem: SyntheticProblem, noise_variance: Tensor) -> Tensor:
    """`genie_bound` of ||x^ - x||^2 for noise variances (..., trials)."""
    return genie_bound(problem.factors, _variances(problem), noise_variance)


def irs_reference(name: str, system: IRSMIMO, rays: tuple[Rays, Rays], seed: int) -> Any:
    """LMMSE, sLMMSE or genie, for the channels of these rays; ValueError where these are off the grid."""
    if name == "genie":
        return GenieMMSE(coefficient_variances(system, rays))
    if name == "LMMSE":
        return LMMSE([torch.diag(g.sqrt()) for g in prior_variances(system)])
    return LMMSE([_irs_root(system, seed)])


def irs_bound(system: IRSMIMO, rays: tuple[Rays, Rays], training: Training, noise_variance: Tensor) -> Tensor:
    """`bilinear_bound` of each pattern's ||H^ - H||^2, for noise variances (..., trials): (..., trials, K_I)."""
    observed, wanted = gain_responses(system, rays, training)
    each = wanted.flatten(-4, -3).movedim(-4, 0)
    return torch.stack([bilinear_bound(observed, D, noise_variance) for D in each], -1)


def require_reference(name: str, system: IRSMIMO) -> None:
    """ValueError where a reference of the IRS experiment is not known for this system."""
    if name != BOUND:
        require_grid(system)


def _variances(problem: SyntheticProblem) -> Tensor:
    """Ones on the support: (..., N_1, ..., N_I)."""
    on = problem.support[0]
    for kept in problem.support[1:]:
        on = on.unsqueeze(-1) & kept.reshape(
            *kept.shape[:-1], *[1] * (on.ndim - kept.ndim + 1), kept.shape[-1]
        )
    return on.double()


@lru_cache(1)
def _synthetic_root(rows: tuple[int, ...], columns: tuple[int, ...], sparsity: int, seed: int) -> Tensor:
    draws = [
        draw_synthetic(trial_generator(seed, "covariance", k), rows, columns, sparsity).x
        for k in range(COVARIANCE_DRAWS)
    ]
    return sample_root(torch.stack(draws))


@lru_cache(1)
def _irs_root(system: IRSMIMO, seed: int) -> Tensor:
    generators = [trial_generator(seed, "covariance", k) for k in range(COVARIANCE_DRAWS)]
    return sample_root(coefficients(system, system.draw_rays(generators)))
