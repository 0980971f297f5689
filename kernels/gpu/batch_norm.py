"""Batch norm in training with the activation after it: two passes forward, two backward.

    out = a(x scale + shift),   scale = weight / sqrt(v + eps),   shift = bias - m scale
    a(z) = z above 0 and slope z below

The sums are taken of x less a channel's first pixel, so that its mean costs no digits. Processes that have a part
of the batch each tell each other their means and variances, and in the backward pass two sums.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from typing import NamedTuple

import torch
import torch.distributed as dist
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
def _moments(x, sums, programs, pixels, C: tl.constexpr, PARTS: tl.constexpr):
    first, second = _totals(sums, programs, C, PARTS)
    centred = first / pixels
    mean = tl.load(x + tl.arange(0, C)).to(tl.float32) + centred
    return mean, tl.maximum(second / pixels - centred * centred, 0.0)


@triton.jit
def moments_kernel(x, sums, moments, programs, pixels, C: tl.constexpr, PARTS: tl.constexpr):
    """moments (2, C): mean and variance of this process."""
    c = tl.arange(0, C)
    mean, variance = _moments(x, sums, programs, pixels, C, PARTS)
    tl.store(moments + c, mean)
    tl.store(moments + C + c, variance)


@triton.jit
def _whole_moments(moments, processes, C: tl.constexpr):
    """Mean and variance of all processes, of moments (2 processes, C)."""
    c = tl.arange(0, C)
    mean, variance = tl.zeros((C,), tl.float32), tl.zeros((C,), tl.float32)
    for process in range(0, processes):
        mean += tl.load(moments + process * 2 * C + c) / processes
    for process in range(0, processes):
        apart = tl.load(moments + process * 2 * C + c) - mean
        variance += (tl.load(moments + process * 2 * C + C + c) + apart * apart) / processes
    return mean, variance


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
    parts,
    pixels,
    momentum,
    eps,
    ALONE: tl.constexpr,
    ADDED: tl.constexpr,
    C: tl.constexpr,
    PARTS: tl.constexpr,
):
    """The constants of every channel, and the running statistics; `added` belongs to x's mean there.

    sums: of `parts` programs, where a process is ALONE, else the moments of `parts` processes. pixels: of all.
    """
    c = tl.arange(0, C)
    if ALONE:
        mean, variance = _moments(x, sums, parts, pixels, C, PARTS)
    else:
        mean, variance = _whole_moments(sums, parts, C)
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
    sums, constants, of_weight, of_bias, slopes, programs, C: tl.constexpr, PARTS: tl.constexpr
):
    """Gradients of weight and bias, and slopes (2, C): a share of what is subtracted, times pixels."""
    c = tl.arange(0, C)
    first, second = _totals(sums, programs, C, PARTS)
    inverse = tl.load(constants + C + c)
    tl.store(of_bias + c, first)
    tl.store(of_weight + c, second * inverse)
    tl.store(slopes + c, first)
    tl.store(slopes + C + c, second * inverse * inverse)


@triton.jit
def apply_backward_kernel(
    x, grad, constants, slopes, out, pixels, processes, slope, C: tl.constexpr, PIXELS: tl.constexpr
):
    c = tl.arange(0, C)
    mean, scale, shift = (
        tl.load(constants + c),
        tl.load(constants + 2 * C + c),
        tl.load(constants + 3 * C + c),
    )
    whole = pixels * processes
    constant, factor = tl.load(slopes + c) / whole, tl.load(slopes + C + c) / whole
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
    group: dist.ProcessGroup | None = None,
) -> Normalised:
    """x (N, C, H, W), channels-last; the others (C,), float32. `added` counts as part of x.

    group: the processes that share the batch, each with a part of x's shape; None where one has all of it.
    """
    channels = x.shape[1]
    pixels, processes = x.numel() // channels, _processes(group)
    sums, parts = _sums(x, x, x, slope, False)
    if group is not None:
        sums, parts = _gathered(_own_moments(x, sums, parts), group), processes
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
        parts,
        pixels * processes,
        momentum,
        eps,
        group is None,
        added is not None,
        channels,
        PARTS,
    )
    out = torch.empty_like(x)
    apply_kernel[(triton.cdiv(pixels, PIXELS),)](x, constants, out, pixels, slope, channels, PIXELS)
    return Normalised(out, constants)


def batch_norm_backward(
    grad: Tensor, x: Tensor, constants: Tensor, slope: float, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, and of weight and bias, of which each process of a group has its part: their mean counts."""
    channels = x.shape[1]
    pixels = x.numel() // channels
    sums, programs = _sums(x, grad, constants, slope, True)
    of_weight, of_bias = (torch.empty(channels, device=x.device) for _ in range(2))
    slopes = torch.empty(2, channels, device=x.device)
    gradients_kernel[(1,)](sums, constants, of_weight, of_bias, slopes, programs, channels, PARTS)
    if group is not None:
        dist.all_reduce(slopes, group=group)
    out = torch.empty_like(x)
    apply_backward_kernel[(triton.cdiv(pixels, PIXELS),)](
        x, grad, constants, slopes, out, pixels, _processes(group), slope, channels, PIXELS
    )
    return out, of_weight, of_bias


def _processes(group: dist.ProcessGroup | None) -> int:
    return 1 if group is None else group.size()


def _own_moments(x: Tensor, sums: Tensor, programs: int) -> Tensor:
    channels = x.shape[1]
    moments = torch.empty(2, channels, device=x.device)
    moments_kernel[(1,)](x, sums, moments, programs, x.numel() // channels, channels, PARTS)
    return moments


def _gathered(own: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Those of all processes, one below the other."""
    found = own.new_empty(group.size() * own.shape[0], *own.shape[1:])
    dist.all_gather_into_tensor(found, own, group=group)
    return found


def _sums(x: Tensor, grad: Tensor, constants: Tensor, slope: float, backward: bool) -> tuple[Tensor, int]:
    channels = x.shape[1]
    pixels = x.numel() // channels
    programs = programs_on(x.device, min(PARTS, triton.cdiv(pixels, PIXELS)), WAVES)
    sums = torch.empty(programs, 2, channels, device=x.device)
    sums_kernel[(programs,)](x, grad, constants, sums, pixels, slope, backward, channels, PIXELS)
    return sums, programs
