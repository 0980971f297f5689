"""How good an estimate is."""

import math

import torch
from torch import Tensor

from ...kernels import leading_singular_triplet
from ..algebra import squared_modulus


def nmse(estimate: Tensor, truth: Tensor, dims: int = 1) -> Tensor:
    """||estimate - truth||^2 / ||truth||^2 over the last `dims` axes: (...).

    Raises ValueError where these are missing, empty or of other sizes, or the batches do not broadcast.

    >>> nmse(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))
    tensor(0.2500)
    """
    error, energy = squared_error(estimate, truth, dims)
    return error / energy


def squared_error(estimate: Tensor, truth: Tensor, dims: int = 1) -> tuple[Tensor, Tensor]:
    """||estimate - truth||^2 and ||truth||^2 over the last `dims` axes: (...) each.

    Raises ValueError as `nmse` does.

    >>> squared_error(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.0]))
    (tensor(1.), tensor(4.))
    """
    axes = _axes(estimate, truth, dims)
    error = squared_modulus(estimate - truth).sum(axes)
    return error, squared_modulus(truth).sum(axes).expand_as(error)


def _axes(estimate: Tensor, truth: Tensor, dims: int) -> tuple[int, ...]:
    """The last `dims` axes, once both tensors are known to have them."""
    for name, x in (("estimate", estimate), ("truth", truth)):
        if not (x.is_floating_point() or x.is_complex()):
            raise ValueError(f"{name} must be floating point or complex, got {x.dtype}")
    last, true = estimate.shape[-dims:], truth.shape[-dims:]
    pairs = zip(reversed(estimate.shape), reversed(truth.shape), strict=False)
    fits = dims >= 1 and len(last) == dims and last == true and 0 not in last
    if not fits or not all(m == n or 1 in (m, n) for m, n in pairs):
        raise ValueError(
            f"estimate {tuple(estimate.shape)} and truth {tuple(truth.shape)} must agree in their last {dims} axes"
        )
    return tuple(range(-dims, 0))


def channel_nmse(estimate: Tensor, truth: Tensor) -> Tensor:
    """NMSE of a cascaded channel (..., K_I, bs, ms), averaged over the K_I patterns: (...).

    Patterns under which the paths cancel, but for rounding, have no NMSE of their own and are left out.
    Source: He and Joseph, IEEE Trans. Signal Processing 2024, section V.

    >>> channel_nmse(torch.zeros(2, 3, 4), torch.ones(2, 3, 4))
    tensor(1.)
    """
    return mean_ratio(*squared_error(estimate, truth, dims=2))


def mean_ratio(error: Tensor, energy: Tensor) -> Tensor:
    """error / energy, averaged over the K_I patterns (..., K_I) whose paths do not cancel: (...).

    >>> mean_ratio(torch.ones(3), torch.tensor([1.0, 0.5, 1e-14]))
    tensor(1.5000)
    """
    seen = above_rounding(energy, energy.amax(-1, keepdim=True))
    return (error / energy.where(seen, math.inf)).sum(-1) / seen.sum(-1)


def above_rounding(energy: Tensor, scale: Tensor) -> Tensor:
    """Whether an energy is more than rounding leaves of rays that cancel, of energy `scale`.

    >>> above_rounding(torch.tensor([1e-5, 1e-14]), torch.tensor(1.0))
    tensor([ True, False])
    """
    return energy >= (64 * torch.finfo(energy.dtype).eps) ** 2 * scale


def support_recovery_rate(estimate: Tensor, truth: Tensor, dims: int = 1, threshold: float = 1e-3) -> Tensor:
    """|S^ and S| / |S^ or S| over the last `dims` axes, S^ the entries above `threshold` of the largest: (...).

    Two empty supports agree: 1. Raises ValueError as `nmse` does.
    Source: He and Joseph, IEEE Trans. Signal Processing 2024, section V.

    >>> support_recovery_rate(torch.tensor([1.0, 1.0, 1e-6]), torch.tensor([1.0, 0.0, 0.0]))
    tensor(0.5000)
    """
    axes = _axes(estimate, truth, dims)
    size = estimate.abs()
    found = size > threshold * size.amax(axes, keepdim=True)
    true = truth != 0
    union = (found | true).sum(axes)
    common = (found & true).sum(axes).to(size.dtype)
    return torch.where(union > 0, common / union.clamp(min=1), 1)


def symbol_error_rate(estimate: Tensor, truth: Tensor, snr_db: Tensor | float) -> Tensor:
    """Symbol error rate of QPSK, precoded and combined by the leading singular vectors of the channel's estimate.

    A symbol s of unit power arrives as h s + noise, h = u^H H v with u, v the leading singular vectors of the
    estimate H^, and is detected at minimum distance from u^H H^ v s. The noise has the variance |h|^2 / SNR: the
    SNR is measured behind the combiner. With phi the phase of h the rate is exact:

        1 - Phi(sqrt(2 SNR) cos(pi/4 + phi)) Phi(sqrt(2 SNR) sin(pi/4 + phi))

    Averaged over the K_I patterns, but for those under which the paths cancel, as `channel_nmse` is.

    estimate, truth: (..., K_I, bs, ms), complex. snr_db: dB, broadcasts to (...). Returns (...).
    Raises ValueError as `nmse` does.
    Source: He and Joseph, IEEE Trans. Signal Processing 2024, section V.

    >>> H = torch.ones(1, 4, 2, dtype=torch.complex128)
    >>> symbol_error_rate(H, H, 4.0).round(decimals=4)
    tensor(0.1098, dtype=torch.float64)
    """
    _axes(estimate, truth, 3)
    dtype = torch.promote_types(estimate.dtype, truth.dtype)
    estimate, truth = estimate.to(dtype), truth.to(dtype)
    _, u, v = leading_singular_triplet(estimate)
    h = (u.conj() * (truth @ v.unsqueeze(-1)).squeeze(-1)).sum(-1)
    snr = 10 ** (torch.as_tensor(snr_db, dtype=h.real.dtype, device=h.device) / 10)
    phase = h.angle() + math.pi / 4
    amplitude = (2 * snr).sqrt().unsqueeze(-1)
    correct = torch.special.ndtr(amplitude * phase.cos()) * torch.special.ndtr(amplitude * phase.sin())
    energy = squared_modulus(truth).sum((-2, -1))
    seen = above_rounding(energy, energy.amax(-1, keepdim=True))
    return (1 - correct).where(seen, 0).sum(-1) / seen.sum(-1)
