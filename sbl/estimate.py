"""What every estimator returns."""

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Estimate:
    """Posterior of x for a batch of problems of batch shape (...).

    mean: (..., N_1, ..., N_I), of y's dtype.
    variance: the same shape, real: the posterior variances.
    hyperparameters: the prior variances, g_i (..., N_i) each, or one (..., N) for an unstructured prior.
    noise_variance: (...), as given or as estimated.
    iterations: (...), whole numbers. converged: (...), booleans.
    cost, change: (..., max_iterations) if asked for: the marginal cost that each iteration began with
        and the relative change of the prior variances that it made; NaN after the last iteration.
    noise_variance_path, hyperparameter_path: (..., max_iterations) and (..., max_iterations, N_i) each, if asked
        for: the noise variance and the prior variances that each iteration ended with; NaN after the last.
    support: if asked for, the kept indices of each factor, (..., n_i); then mean and variance have the
        shape (..., n_1, ..., n_I). Where a batch member keeps fewer entries the surplus is zero.
    """

    mean: Tensor
    variance: Tensor
    hyperparameters: tuple[Tensor, ...]
    noise_variance: Tensor
    iterations: Tensor
    converged: Tensor
    cost: Tensor | None = None
    change: Tensor | None = None
    noise_variance_path: Tensor | None = None
    hyperparameter_path: tuple[Tensor, ...] | None = None
    support: tuple[Tensor, ...] | None = None


def spread(values: Tensor, index: tuple[Tensor, ...], lengths: tuple[int, ...]) -> Tensor:
    """Put (B, prod n_i) values at their (B, n_i) indices of a (B, prod N_i) array of zeros.

    >>> import torch
    >>> spread(torch.tensor([[5.0, 7.0]]), (torch.tensor([[2]]), torch.tensor([[0, 1]])), (3, 2))
    tensor([[0., 0., 0., 0., 5., 7.]])
    """
    flat = index[0]
    for length, entries in zip(lengths[1:], index[1:], strict=True):
        flat = (flat.unsqueeze(-1) * length + entries.unsqueeze(-2)).flatten(-2)
    size = math.prod(lengths)
    return values.new_zeros(values.shape[0], size).scatter(-1, flat, values)
