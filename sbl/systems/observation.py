"""Noise at a given signal-to-noise ratio."""

import torch
from torch import Tensor

from sbl.algebra import squared_modulus


def observe(clean: Tensor, noise: Tensor, snr_db: Tensor | float) -> tuple[Tensor, Tensor]:
    """y = clean + sqrt(s2) noise with s2 = mean |clean|^2 / 10^(SNR / 10).

    clean, noise: (..., M), noise of unit variance. snr_db: dB, broadcasts to (...).
    Returns y (..., M) and s2 (...).

    >>> y, s2 = observe(torch.ones(4), torch.ones(4), 20.0)
    >>> s2
    tensor(0.0100)
    """
    ratio = 10 ** (torch.as_tensor(snr_db, dtype=clean.real.dtype, device=clean.device) / 10)
    s2 = squared_modulus(clean).mean(-1) / ratio
    return clean + s2.sqrt().unsqueeze(-1) * noise, s2
