"""What every estimator returns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from .em.functional import Functional, Functionals


class Ended(IntEnum):
    """Why an estimator stopped.

    SETTLED: the prior variances, or a greedy method's residual, met the tolerance.
    ITERATIONS: it made all the iterations that it may.
    COST_ROSE: the prior variances settled where the marginal cost lies above the lowest on the way there, as it
        does where an entry was pruned that the measurements speak for; not told where the noise is more than 90 dB
        below y, whose rounding the cost then shows.
    PRUNED: no entry of x is left; the mean is zero, as it is where y is.
    NOT_FINITE: numbers overflowed; the estimate is zero.
    """

    SETTLED = 0
    ITERATIONS = 1
    COST_ROSE = 2
    PRUNED = 3
    NOT_FINITE = 4


@dataclass(frozen=True)
class Estimate:
    """Posterior of x for a batch of problems of batch shape (...).

    mean: (..., N_1, ..., N_I), of y's dtype.
    variance: the same shape, real: the posterior variances.
    hyperparameters: the prior variances, g_i (..., N_i) each, or one (..., N) for an unstructured prior.
    noise_variance: (...), as given or as estimated.
    iterations: (...), whole numbers. ended: (...), the `Ended` of each problem, as whole numbers.
    residual_to_noise: (...), ||y - A mean||^2 / (M noise_variance): at most about one where the model explains y,
        and far above where it does not, as for angles off the grid. It says nothing of a noise variance that was
        estimated, which takes in what the model leaves.
    cost, change: (..., max_iterations) if asked for: the marginal cost that each iteration began with
        and the relative change of the prior variances that it made; NaN after the last iteration.
    noise_variance_path, hyperparameter_path: (..., max_iterations) and (..., max_iterations, N_i) each, if asked
        for: the noise variance and the prior variances that each iteration ended with; NaN after the last.
    functionals: what `functional` needs, where the prior has Kronecker structure.
    support: if asked for, the kept indices of each factor, (..., n_i); then mean and variance have the
        shape (..., n_1, ..., n_I). Where a batch member keeps fewer entries the surplus is zero.
    """

    mean: Tensor
    variance: Tensor
    hyperparameters: tuple[Tensor, ...]
    noise_variance: Tensor
    iterations: Tensor
    ended: Tensor
    residual_to_noise: Tensor
    cost: Tensor | None = None
    change: Tensor | None = None
    noise_variance_path: Tensor | None = None
    hyperparameter_path: tuple[Tensor, ...] | None = None
    support: tuple[Tensor, ...] | None = None
    functionals: "Functionals | None" = field(default=None, repr=False, compare=False)

    def functional(self, B: Sequence[Tensor]) -> "Functional":
        """Posterior mean and variance of (B_1 kron ... kron B_I) x, with the covariances that `variance` omits.

            mean     = (kron B_i W_i) (z / (s2 + P))
            variance = kron (|B_i|^2 g_i) - (kron |B_i W_i|^2) (1 / (s2 + P))

        with W_i, z and P of `sbl.em.kronecker_posterior`; squares and |.|^2 are elementwise, and nothing of size
        prod R_i x prod N_i or N x N is formed.

        B: (..., R_i, N_i) for each factor; their batch shapes expand to that of the problems, and columns of
            pruned entries have no effect.

        Raises:
            ValueError: B has a wrong shape or dtype, or the estimator's prior is not of Kronecker structure.

        Source: the Gaussian posterior of He and Joseph, IEEE Trans. Signal Processing 2024, section III.

        >>> import torch
        >>> from unfoldkit.sbl import SVDKroSBL
        >>> A, y = [torch.eye(2, dtype=torch.float64)] * 2, torch.tensor([3.0, 0, 0, 0], dtype=torch.float64)
        >>> total = SVDKroSBL()(A, y, 1e-4).functional([torch.ones(1, 2), torch.ones(1, 2)])
        >>> total.mean.round(decimals=2), total.variance.shape
        (tensor([[3.]], dtype=torch.float64), torch.Size([1, 1]))
        """
        if self.functionals is None:
            raise ValueError("linear functionals need an estimator whose prior has Kronecker structure")
        return self.functionals(B)

    @property
    def converged(self) -> Tensor:
        """(...), booleans: settled, and the cost supports it."""
        return self.ended == Ended.SETTLED


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
