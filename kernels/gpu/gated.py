"""Features times a gate for each picture and channel, plus others, and means over pixels; one pass each.

out[n, p, c] = theta[n, c] x[n, p, c] + y[n, p, c]
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import programs_on

PIXELS, WAVES = 128, 8


@triton.jit
def gated_kernel(theta, x, y, out, pixels, C: tl.constexpr, PIXELS: tl.constexpr):
    """pixels: of a picture."""
    pixel, picture, c = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.program_id(1), tl.arange(0, C)
    here, inside = (picture * pixels + pixel)[:, None] * C + c[None, :], (pixel < pixels)[:, None]
    gate = tl.load(theta + picture * C + c).to(tl.float32)[None, :]
    found = gate * tl.load(x + here, inside, 0.0).to(tl.float32)
    found += tl.load(y + here, inside, 0.0).to(tl.float32)
    tl.store(out + here, found.to(out.dtype.element_ty), inside)


@triton.jit
def sums_kernel(
    theta, grad, x, of_x, sums, pixels, GATED: tl.constexpr, C: tl.constexpr, PIXELS: tl.constexpr
):
    """sums[picture, program, c] over pixels of x or, GATED, of x grad; then also of_x = theta grad."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    picture, c = tl.program_id(1), tl.arange(0, C)
    total = tl.zeros((C,), tl.float32)
    for tile in range(program, tl.cdiv(pixels, PIXELS), programs):
        pixel = tile * PIXELS + tl.arange(0, PIXELS)
        here, inside = (picture * pixels + pixel)[:, None] * C + c[None, :], (pixel < pixels)[:, None]
        value = tl.load(x + here, inside, 0.0).to(tl.float32)
        if GATED:
            g = tl.load(grad + here, inside, 0.0).to(tl.float32)
            value *= g
            g *= tl.load(theta + picture * C + c).to(tl.float32)[None, :]
            tl.store(of_x + here, g.to(of_x.dtype.element_ty), inside)
        total += tl.sum(value, 0)
    tl.store(sums + (picture * programs + program) * C + c, total)


def gated(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x and y (N, C, H, W), channels-last, theta (N, C, 1, 1)."""
    pictures, channels, height, width = x.shape
    out, pixels = torch.empty_like(x), height * width
    grid = (triton.cdiv(pixels, PIXELS), pictures)
    gated_kernel[grid](theta.contiguous(), x, y, out, pixels, channels, PIXELS)
    return out


def gated_backward(grad: Tensor, theta: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of theta, in float32, and x; that of y is `grad`."""
    of_x = torch.empty_like(x)
    return _sums(x, theta.contiguous(), grad, of_x), of_x


def mean(x: Tensor) -> Tensor:
    """(N, C, 1, 1) in float32, of x (N, C, H, W), channels-last."""
    return _sums(x) / (x.shape[2] * x.shape[3])


def _sums(
    x: Tensor, theta: Tensor | None = None, grad: Tensor | None = None, of_x: Tensor | None = None
) -> Tensor:
    pictures, channels, height, width = x.shape
    pixels = height * width
    programs = -(-programs_on(x.device, pictures * triton.cdiv(pixels, PIXELS), WAVES) // pictures)
    sums = torch.empty(pictures, programs, channels, device=x.device)
    given = [x if other is None else other for other in (theta, grad, x, of_x)]
    sums_kernel[(programs, pictures)](*given, sums, pixels, theta is not None, channels, PIXELS)
    return sums.sum(1)[:, :, None, None]
