"""Arrays that are not what they are taken for: gains of the rows of a factor, learned by
expectation-maximisation."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .algebra import reciprocal, squared_modulus
from .estimate import Estimate


class Calibrated(NamedTuple):
    """The last estimate; the refined factors; the gains d (M_i,), of mean phase zero."""

    estimate: Estimate
    factors: tuple[Tensor, ...]
    gains: Tensor


def calibrate(
    estimator: Callable[..., Estimate],
    factors: Sequence[Tensor],
    y: Tensor,
    noise_variance: Tensor | float | None = None,
    *,
    factor: int,
    unit_modulus: bool = True,
    rounds: int = 20,
    tolerance: float = 1e-3,
) -> Calibrated:
    """Estimate x and the gains of an array's elements together, which all problems of the batch share.

    The true factor is diag(d) A_i. Expectation-maximisation takes the expectation of -||y - A(d) x||^2 over the
    posterior of x, which for the rows of factor i falls apart: with y and A x unfolded as (M_i, others) and
    f = (A_1 kron ... kron A_I) x before the gains,

        E||y - A(d) x||^2 = sum_m ||y_m||^2 - 2 Re(d_m sum y_m^* E[f_m]) + |d_m|^2 sum E|f_m|^2
        d_m = sum y_m E[f_m]^* / sum E|f_m|^2,   E|f|^2 = |E f|^2 + var f,

    sums over the other modes and the batch; mean and variance of f are `Estimate.functional`'s. Of gains of unit
    modulus, as of phase errors, only the phase of d_m counts; a row that says nothing keeps its gain. Phases have
    mean zero (and moduli mean square one), since a common gain is one of x; gains that vary slowly over an array
    look like other angles, and are not told apart from these. Each round estimates x anew with the factors so far,
    and the noise variance with it, which takes in what the gains still miss; with that of the noise alone x would
    explain it by many small entries. `noise_variance` is that of the last estimate.

    estimator: a Kronecker-structured one by EM, whose estimates have `functional`. factor: i, from 0. factors: as
    of every estimator; the refined one is (M_i, N_i), shared by the batch. rounds: at most; tolerance: the
    change of a gain at which they end.

    Raises:
        ValueError: the factor is not there or not shared, rounds is less than one, or what the estimator raises.

    Source: Dempster, Laird and Rubin, "Maximum likelihood from incomplete data via the EM algorithm", 1977, for
    EM; with all of A_i free it is the dictionary step of Engan, Aase and Husoy, "Method of optimal directions",
    1999.

    >>> from unfoldkit.sbl import AMKroSBL
    >>> A = torch.fft.fft(torch.eye(8, dtype=torch.complex128))[:6]
    >>> gains = torch.polar(torch.ones(6).double(), torch.tensor([0.0, 0.2, -0.2, 0.1, -0.1, 0.0]).double())
    >>> x = torch.zeros(50, 8, dtype=A.dtype)
    >>> x[torch.arange(50), torch.arange(50) % 8] = 1.0
    >>> y = x @ (gains.unsqueeze(-1) * A).mT
    >>> (calibrate(AMKroSBL(), [A], y, 1e-4, factor=0).gains - gains).abs().max() < 0.02
    tensor(True)
    """
    if not 0 <= factor < len(factors):
        raise ValueError(f"factor must be between 0 and {len(factors) - 1}, got {factor}")
    if factors[factor].shape[:-2].numel() != 1:
        raise ValueError(f"factors[{factor}] must be shared by the batch, got {tuple(factors[factor].shape)}")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    nominal = factors[factor].reshape(factors[factor].shape[-2:])
    gains = torch.ones_like(nominal[:, 0])

    def refined() -> tuple[Tensor, ...]:
        return (*factors[:factor], gains.unsqueeze(-1) * nominal, *factors[factor + 1 :])

    for _ in range(rounds):
        moved = _gains(refined(), y, estimator(refined(), y), factor, unit_modulus)
        before, gains = gains, _normal(gains * moved, unit_modulus)
        if float((gains - before).abs().amax()) <= tolerance:
            break
    return Calibrated(estimator(refined(), y, noise_variance), refined(), gains)


def _gains(
    factors: Sequence[Tensor], y: Tensor, estimate: Estimate, factor: int, unit_modulus: bool
) -> Tensor:
    """What the M-step multiplies the gains of so far by: (M_i,)."""
    fit = estimate.functional(list(factors))
    rows = [A.shape[-2] for A in factors]
    others = [axis for axis in range(-len(rows), 0) if axis != factor - len(rows)]
    axes = (*range(fit.mean.ndim - len(rows)), *(axis + fit.mean.ndim for axis in others))
    observed = y.unflatten(-1, rows).expand_as(fit.mean)
    pulled = (observed * fit.mean.conj()).sum(axes)
    if unit_modulus:
        return torch.where(pulled == 0, 1, torch.sgn(pulled))
    seen = (squared_modulus(fit.mean) + fit.variance).sum(axes)
    return torch.where(seen > 0, pulled * reciprocal(seen), 1)


def _normal(gains: Tensor, unit_modulus: bool = False) -> Tensor:
    """Of mean phase zero and, unless each is one, mean square modulus one."""
    turned = gains * torch.sgn(gains.sum()).conj()
    return turned if unit_modulus else turned * reciprocal(squared_modulus(turned).mean().sqrt())
