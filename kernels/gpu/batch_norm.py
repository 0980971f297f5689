"""Batch norm in training with the activation after it: two passes forward, two backward.

    out = a(x scale + shift),   scale = weight / sqrt(v + eps),   shift = bias - m scale
    a(z) = z above 0 and slope z below

The sums are taken of x less a channel's first pixel, so that its mean costs no digits.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import programs_on

PIXELS, WAVES = 128, 8
PARTS = 1024  # programs at most, a power of two


class Normalised(NamedTuple):
    """The output, and (4, C) of each channel: mean, 1 / sqrt(v + eps), scale, shift."""

    out: Tensor
    constants: Tensor


@triton.jit
def sums_kernel(
    x, grad, constants, sums, pixels, slope, BACKWARD: tl.constexpr, C: tl.constexpr, PIXELS: tl.constexpr
):
    """sums (programs, 2, C): of x - x[0] and its square; backward, of g and g (x - m), g behind the activation."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    c = tl.arange(0, C)
    first, second = tl.zeros((C,), tl.float32), tl.zeros((C,), tl.float32)
    if BACKWARD:
        origin, scale, shift = (
            tl.load(constants + c),
            tl.load(constants + 2 * C + c),
            tl.load(constants + 3 * C + c),
        )
    else:
        origin = tl.load(x + c).to(tl.float32)
    for tile in range(program, tl.cdiv(pixels, PIXELS), programs):
        pixel = tile * PIXELS + tl.arange(0, PIXELS)
        here, inside = pixel[:, None] * C + c[None, :], (pixel < pixels)[:, None]
        value = tl.load(x + here, inside, 0.0).to(tl.float32)
        centred = tl.where(inside, value - origin[None, :], 0.0)
        if BACKWARD:
            g = tl.load(grad + here, inside, 0.0).to(tl.float32)
            g = tl.where(value * scale[None, :] + shift[None, :] > 0, g, slope * g)
            first += tl.sum(g, 0)
            second += tl.sum(g * centred, 0)
        else:
            first += tl.sum(centred, 0)
            second += tl.sum(centred * centred, 0)
    tl.store(sums + program * 2 * C + c, first)
    tl.store(sums + program * 2 * C + C + c, second)


@triton.jit
def _totals(sums, programs, C: tl.constexpr, PARTS: tl.constexpr):
    part, c = tl.arange(0, 128), tl.arange(0, C)
    first, second = tl.zeros((128, C), tl.float32), tl.zeros((128, C), tl.float32)
    for start in range(0, PARTS, 128):
        here, inside = (start + part)[:, None] * 2 * C + c[None, :], (start + part < programs)[:, None]
        first += tl.load(sums + here, inside, 0.0)
        second += tl.load(sums + C + here, inside, 0.0)
    return tl.sum(first, 0), tl.sum(second, 0)


@triton.jit
def statistics_kernel(
    x,
    sums,
    weight,
    bias,
    running_mean,
    running_var,
    added,
    constants,
    programs,
    pixels,
    momentum,
    eps,
    ADDED: tl.constexpr,
    C: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The constants of every channel, and the running statistics; `added` belongs to x's mean there."""
    c = tl.arange(0, C)
    first, second = _totals(sums, programs, C, PARTS)
    centred = first / pixels
    mean = tl.load(x + c).to(tl.float32) + centred
    variance = tl.maximum(second / pixels - centred * centred, 0.0)
    inverse = 1 / tl.sqrt(variance + eps)
    scale = tl.load(weight + c) * inverse
    tl.store(constants + c, mean)
    tl.store(constants + C + c, inverse)
    tl.store(constants + 2 * C + c, scale)
    tl.store(constants + 3 * C + c, tl.load(bias + c) - mean * scale)
    if ADDED:
        mean += tl.load(added + c)
    before = tl.load(running_mean + c)
    tl.store(running_mean + c, before + momentum * (mean - before))
    before = tl.load(running_var + c)
    tl.store(running_var + c, before + momentum * (variance * pixels / (pixels - 1) - before))


@triton.jit
def apply_kernel(x, constants, out, pixels, slope, C: tl.constexpr, PIXELS: tl.constexpr):
    c = tl.arange(0, C)
    scale, shift = tl.load(constants + 2 * C + c), tl.load(constants + 3 * C + c)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    here, inside = pixel[:, None] * C + c[None, :], (pixel < pixels)[:, None]
    z = tl.load(x + here, inside, 0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    tl.store(out + here, tl.where(z > 0, z, slope * z).to(out.dtype.element_ty), inside)


@triton.jit
def gradients_kernel(
    sums, constants, of_weight, of_bias, slopes, programs, pixels, C: tl.constexpr, PARTS: tl.constexpr
):
    """Gradients of weight and bias, and slopes (2, C): what `apply_backward_kernel` subtracts."""
    c = tl.arange(0, C)
    first, second = _totals(sums, programs, C, PARTS)
    inverse = tl.load(constants + C + c)
    tl.store(of_bias + c, first)
    tl.store(of_weight + c, second * inverse)
    tl.store(slopes + c, first / pixels)
    tl.store(slopes + C + c, second * inverse * inverse / pixels)


@triton.jit
def apply_backward_kernel(
    x, grad, constants, slopes, out, pixels, slope, C: tl.constexpr, PIXELS: tl.constexpr
):
    c = tl.arange(0, C)
    mean, scale, shift = (
        tl.load(constants + c),
        tl.load(constants + 2 * C + c),
        tl.load(constants + 3 * C + c),
    )
    constant, factor = tl.load(slopes + c), tl.load(slopes + C + c)
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    here, inside = pixel[:, None] * C + c[None, :], (pixel < pixels)[:, None]
    value = tl.load(x + here, inside, 0.0).to(tl.float32)
    g = tl.load(grad + here, inside, 0.0).to(tl.float32)
    g = tl.where(value * scale[None, :] + shift[None, :] > 0, g, slope * g)
    found = scale[None, :] * (g - constant[None, :] - (value - mean[None, :]) * factor[None, :])
    tl.store(out + here, found.to(out.dtype.element_ty), inside)


def batch_norm(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    added: Tensor | None,
    momentum: float,
    eps: float,
    slope: float,
) -> Normalised:
    """x (N, C, H, W), channels-last; the others (C,), float32. `added` counts as part of x."""
    channels = x.shape[1]
    pixels = x.numel() // channels
    sums, programs = _sums(x, x, x, slope, False)
    constants = torch.empty(4, channels, device=x.device)
    statistics_kernel[(1,)](
        x,
        sums,
        weight,
        bias,
        running_mean,
        running_var,
        bias if added is None else added,
        constants,
        programs,
        pixels,
        momentum,
        eps,
        added is not None,
        channels,
        PARTS,
    )
    out = torch.empty_like(x)
    apply_kernel[(triton.cdiv(pixels, PIXELS),)](x, constants, out, pixels, slope, channels, PIXELS)
    return Normalised(out, constants)


def batch_norm_backward(
    grad: Tensor, x: Tensor, constants: Tensor, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and bias."""
    channels = x.shape[1]
    pixels = x.numel() // channels
    sums, programs = _sums(x, grad, constants, slope, True)
    of_weight, of_bias = (torch.empty(channels, device=x.device) for _ in range(2))
    slopes = torch.empty(2, channels, device=x.device)
    gradients_kernel[(1,)](sums, constants, of_weight, of_bias, slopes, programs, pixels, channels, PARTS)
    out = torch.empty_like(x)
    apply_backward_kernel[(triton.cdiv(pixels, PIXELS),)](
        x, grad, constants, slopes, out, pixels, slope, channels, PIXELS
    )
    return out, of_weight, of_bias


def _sums(x: Tensor, grad: Tensor, constants: Tensor, slope: float, backward: bool) -> tuple[Tensor, int]:
    channels = x.shape[1]
    pixels = x.numel() // channels
    programs = programs_on(x.device, min(PARTS, triton.cdiv(pixels, PIXELS)), WAVES)
    sums = torch.empty(programs, 2, channels, device=x.device)
    sums_kernel[(programs,)](x, grad, constants, sums, pixels, slope, backward, channels, PIXELS)
    return sums, programs
