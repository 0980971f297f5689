"""Noise at a given signal-to-noise ratio."""

import torch
from torch import Tensor

from ...kernels.dispatch.checks import broadcast_batches
from ..algebra import squared_modulus


def observe(clean: Tensor, noise: Tensor, snr_db: Tensor | float) -> tuple[Tensor, Tensor]:
    """y = clean + sqrt(s2) noise with s2 = mean |clean|^2 / 10^(SNR / 10).

    clean, noise: (..., M), noise of unit variance. snr_db: dB, broadcasts to (...).
    Returns y (..., M) and s2 (...).
    Raises ValueError where clean or noise is not floating point or complex, or the shapes do not fit.

    >>> y, s2 = observe(torch.ones(4), torch.ones(4), 20.0)
    >>> s2
    tensor(0.0100)
    """
    for name, x in (("clean", clean), ("noise", noise)):
        if not (x.is_floating_point() or x.is_complex()) or x.ndim == 0:
            raise ValueError(
                f"{name} must be (..., M), floating point or complex, got {x.dtype} {tuple(x.shape)}"
            )
    if clean.shape[-1] != noise.shape[-1]:
        raise ValueError(f"clean has {clean.shape[-1]} entries in its last axis, noise {noise.shape[-1]}")
    ratio = 10 ** (torch.as_tensor(snr_db, dtype=clean.real.dtype, device=clean.device) / 10)
    broadcast_batches("clean, noise and snr_db", clean.shape[:-1], noise.shape[:-1], ratio.shape)
    s2 = squared_modulus(clean).mean(-1) / ratio
    return clean + s2.sqrt().unsqueeze(-1) * noise, s2
