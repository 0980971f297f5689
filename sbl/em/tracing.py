"""What an estimator did to one problem, iteration by iteration."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..problem import Problem, pose
from .loop import ExpectationMaximisation
from .state import initial_state


class Trace(NamedTuple):
    """T iterations of one problem.

    mean: (T, N_1, ..., N_I), the estimate had the estimator stopped there.  hyperparameters: (T, N_i) each.
    noise_variance, cost, change: (T,), as in `Estimate`.
    """

    mean: Tensor
    hyperparameters: tuple[Tensor, ...]
    noise_variance: Tensor
    cost: Tensor
    change: Tensor


def trace(
    estimator: ExpectationMaximisation,
    factors: Sequence[Tensor],
    y: Tensor,
    noise_variance: Tensor | float | None = None,
) -> Trace:
    """Estimate x from one y = (A_1 kron ... kron A_I) x + noise and keep every iteration.

    Args:
        estimator: one that iterates, such as SVDKroSBL(), AMKroSBL(), PCKroSBL() or ClassicSBL().
        factors: (M_i, N_i).
        y: (M_1 ... M_I,).
        noise_variance: a number; None estimates it.

    Raises:
        ValueError: `estimator` does not iterate, there is a batch, or what the estimator raises.

    >>> from unfoldkit.sbl import SVDKroSBL
    >>> A = [torch.eye(3, dtype=torch.float64), torch.eye(4, dtype=torch.float64)]
    >>> y = torch.zeros(12, dtype=torch.float64)
    >>> y[5] = 2
    >>> kept = trace(SVDKroSBL(max_iterations=2), A, y, 1e-3)
    >>> kept.mean.shape, [tuple(g.shape) for g in kept.hyperparameters]
    (torch.Size([2, 3, 4]), [(2, 3), (2, 4)])
    """
    if not isinstance(estimator, ExpectationMaximisation):
        raise ValueError(f"estimator must be one that iterates, got {type(estimator).__name__}")
    if y.ndim != 1 or any(A.ndim != 2 for A in factors):
        raise ValueError("expected one problem: factors (M_i, N_i) and y (M_1 ... M_I,)")
    estimate = estimator(factors, y, noise_variance, history=True)
    assert estimate.cost is not None
    assert estimate.change is not None
    assert estimate.noise_variance_path is not None
    assert estimate.hyperparameter_path is not None
    ran = slice(0, int(estimate.iterations))
    noise, path = estimate.noise_variance_path[ran], [g[ran] for g in estimate.hyperparameter_path]
    means = torch.stack(
        [_mean(estimator, pose(factors, y, s2), g) for s2, *g in zip(noise, *path, strict=True)]
    )
    return Trace(means, tuple(path), noise, estimate.cost[ran], estimate.change[ran])


def _mean(estimator: ExpectationMaximisation, problem: Problem, prior: list[Tensor]) -> Tensor:
    """That of x (N_1, ..., N_I) under these prior variances, in the units in which the estimator works."""
    problem, units = estimator.in_units(problem)
    g = tuple(v.unsqueeze(0) for v in prior)
    mean = estimator.posterior(initial_state(problem, g if units is None else units.prior(g))).mean()
    return (mean if units is None else units.whole(mean))[0].unflatten(0, problem.lengths)
