"""What the linear baselines have in common: their `Estimate`."""

import torch
from torch import Tensor

from ...kernels import kron_matvec
from ..algebra import reciprocal, squared_modulus
from ..estimate import Ended, Estimate
from ..problem import Problem


def answer(
    given: Problem,
    mean: Tensor,
    variance: Tensor,
    noise: Tensor,
    iterations: Tensor | None = None,
    settled: Tensor | None = None,
) -> Estimate:
    """The estimate of the problem as it was given; |mean|^2 + variance stand for its hyper-parameters.

    mean, variance: (B, N); noise: (B,), known or estimated, all in double precision. iterations: (B,), one unless
    told otherwise; settled: (B,) booleans, all unless told otherwise. The residual is compared with a noise of y's
    rounding at least.
    """
    y, batch, real = given.y, given.batch, given.y.real.dtype
    ones = torch.ones(len(y), dtype=torch.long, device=y.device)
    factors = [A.to(mean.dtype) for A in given.factors]
    residual = squared_modulus(y.to(mean.dtype) - kron_matvec(factors, mean)).mean(-1)
    rounding = torch.finfo(real).eps * squared_modulus(y.to(mean.dtype)).mean(-1)
    ended = Ended.SETTLED * ones
    if settled is not None:
        ended = torch.where(settled, ended, Ended.ITERATIONS)
    shape = (*batch, *given.lengths)
    return Estimate(
        mean=mean.to(y.dtype).reshape(shape),
        variance=variance.to(real).reshape(shape),
        hyperparameters=((squared_modulus(mean) + variance).to(real).reshape(*batch, mean.shape[-1]),),
        noise_variance=noise.to(real).reshape(batch),
        iterations=(ones if iterations is None else iterations).reshape(batch),
        ended=ended.reshape(batch),
        residual_to_noise=(residual * reciprocal(torch.maximum(noise, rounding))).to(real).reshape(batch),
    )
