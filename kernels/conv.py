"""Exact two-dimensional convolution with a large window."""

import torch
import torch.nn.functional as F
from torch import Tensor


def conv_spectrum(weight: Tensor) -> Tensor:
    """Spectrum of a weight, to hand to `large_kernel_conv2d` again and again in inference."""
    return torch.fft.rfft2(weight, s=(64, 64))


def large_kernel_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding: int | tuple[int, int] | str = "same",
    *,
    spectrum: Tensor | None = None,
) -> Tensor:
    """2-D convolution of (..., C, H, W) with (O, C, k, k), odd windows, stride 1, zero padding."""
    flat = input.reshape(-1, *input.shape[-3:])
    out = F.conv2d(flat, weight, bias, padding=padding)
    return out.reshape(*input.shape[:-3], *out.shape[-3:])
