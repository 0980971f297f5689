"""Both gradients of a 3x3 convolution in one pass: the output's gradient is read once, shifted on chip.

    grad_x[p, c] = sum_{t, o} g[p - t, o] w_t[c, o]      dw_t[c, o] = sum_p x[p, c] g[p - t, o]

over the nine shifts t use the same shifted g. Channels last; the sums are float32.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import programs_on

PIXELS, WARPS, WAVES, STAGES = 64, 4, 2, 2


@triton.jit
def _tap(
    of_x,
    of_w,
    x,
    grad,
    weight,
    pixel,
    row,
    column,
    height,
    width,
    pixels,
    DY: tl.constexpr,
    DX: tl.constexpr,
    C: tl.constexpr,
    OUT: tl.constexpr,
):
    """Add what one shift contributes to both gradients."""
    there = pixel - (DY * width + DX)
    inside = (row >= DY) & (row < height + DY) & (column >= DX) & (column < width + DX) & (pixel < pixels)
    o, c = tl.arange(0, OUT), tl.arange(0, C)
    g = tl.load(grad + there[:, None] * OUT + o[None, :], inside[:, None], 0.0)
    w = tl.load(weight + ((DY + 1) * 3 + DX + 1) * C * OUT + o[:, None] + c[None, :] * OUT)
    of_x = tl.dot(g, w, of_x)
    of_w = tl.dot(tl.trans(x), g, of_w)
    return of_x, of_w, g


@triton.jit
def conv_backward_kernel(
    grad,
    input,
    weight,
    plus,
    grad_input,
    grad_weight,
    grad_bias,
    height,
    width,
    pixels,
    RECTIFIED: tl.constexpr,
    PLUS: tl.constexpr,
    C: tl.constexpr,
    OUT: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """g (pixels, O), x (pixels, C), w (9, C, O); grad_weight (programs, 9, C, O), grad_bias (programs, O)."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    c, o = tl.arange(0, C), tl.arange(0, OUT)
    w0 = tl.zeros((C, OUT), tl.float32)
    w1, w2, w3, w4, w5, w6, w7, w8 = w0, w0, w0, w0, w0, w0, w0, w0
    bias = tl.zeros((OUT,), tl.float32)
    for tile in range(program, tl.cdiv(pixels, PIXELS), programs):
        pixel = tile * PIXELS + tl.arange(0, PIXELS)
        row, column = (pixel // width) % height, pixel % width
        here = pixel[:, None] * C + c[None, :]
        x = tl.load(input + here, (pixel < pixels)[:, None], 0.0)
        of_x = tl.zeros((PIXELS, C), tl.float32)
        of_x, w0, _ = _tap(
            of_x, w0, x, grad, weight, pixel, row, column, height, width, pixels, -1, -1, C, OUT
        )
        of_x, w1, _ = _tap(
            of_x, w1, x, grad, weight, pixel, row, column, height, width, pixels, -1, 0, C, OUT
        )
        of_x, w2, _ = _tap(
            of_x, w2, x, grad, weight, pixel, row, column, height, width, pixels, -1, 1, C, OUT
        )
        of_x, w3, _ = _tap(
            of_x, w3, x, grad, weight, pixel, row, column, height, width, pixels, 0, -1, C, OUT
        )
        of_x, w4, g = _tap(of_x, w4, x, grad, weight, pixel, row, column, height, width, pixels, 0, 0, C, OUT)
        of_x, w5, _ = _tap(of_x, w5, x, grad, weight, pixel, row, column, height, width, pixels, 0, 1, C, OUT)
        of_x, w6, _ = _tap(
            of_x, w6, x, grad, weight, pixel, row, column, height, width, pixels, 1, -1, C, OUT
        )
        of_x, w7, _ = _tap(of_x, w7, x, grad, weight, pixel, row, column, height, width, pixels, 1, 0, C, OUT)
        of_x, w8, _ = _tap(of_x, w8, x, grad, weight, pixel, row, column, height, width, pixels, 1, 1, C, OUT)
        bias += tl.sum(g.to(tl.float32), 0)
        if RECTIFIED:
            of_x = tl.where(x > 0, of_x, 0.0)
        if PLUS:
            of_x += tl.load(plus + here, (pixel < pixels)[:, None], 0.0).to(tl.float32)
        tl.store(grad_input + here, of_x.to(grad_input.dtype.element_ty), (pixel < pixels)[:, None])
    at = grad_weight + program * 9 * C * OUT + c[:, None] * OUT + o[None, :]
    tl.store(at, w0)
    tl.store(at + C * OUT, w1)
    tl.store(at + 2 * C * OUT, w2)
    tl.store(at + 3 * C * OUT, w3)
    tl.store(at + 4 * C * OUT, w4)
    tl.store(at + 5 * C * OUT, w5)
    tl.store(at + 6 * C * OUT, w6)
    tl.store(at + 7 * C * OUT, w7)
    tl.store(at + 8 * C * OUT, w8)
    tl.store(grad_bias + program * OUT + o, bias)


def conv_backward(
    grad: Tensor, input: Tensor, weight: Tensor, rectified: bool = False, plus: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias.

    grad (N, O, H, W) and input (N, C, H, W): bfloat16, float16 or float32, channels-last; weight (O, C, 3, 3).
    rectified: input is a rectifier's output, and the gradient that of the rectifier's input.
    plus: added to the input's gradient.
    """
    images, channels, height, width = input.shape
    outputs, pixels, device = len(weight), images * height * width, input.device
    taps = weight.permute(2, 3, 1, 0).to(input.dtype).contiguous()
    programs = programs_on(device, triton.cdiv(pixels, PIXELS), WAVES)
    grad_input = torch.empty_like(input)
    of_weight = torch.empty(programs, 3, 3, channels, outputs, device=device)
    of_bias = torch.empty(programs, outputs, device=device)
    conv_backward_kernel[(programs,)](
        grad,
        input,
        taps,
        input if plus is None else plus,
        grad_input,
        of_weight,
        of_bias,
        height,
        width,
        pixels,
        rectified,
        plus is not None,
        channels,
        outputs,
        PIXELS,
        num_warps=WARPS,
        num_stages=STAGES,
    )
    return grad_input, of_weight.sum(0).permute(3, 2, 0, 1).to(weight.dtype), of_bias.sum(0).to(weight.dtype)


@triton.jit
def add_kernel(found, bias, residual, out, pixels, C: tl.constexpr, PIXELS: tl.constexpr):
    pixel, c = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.arange(0, C)
    here, inside = pixel[:, None] * C + c[None, :], (pixel < pixels)[:, None]
    value = tl.load(found + here, inside, 0.0).to(tl.float32) + tl.load(bias + c)[None, :]
    value += tl.load(residual + here, inside, 0.0).to(tl.float32)
    tl.store(out + here, value.to(out.dtype.element_ty), inside)


def add_bias_and(residual: Tensor, found: Tensor, bias: Tensor) -> Tensor:
    """found + bias + residual; both (N, C, H, W), channels-last, bias (C,) in float32."""
    out, channels = torch.empty_like(found), found.shape[1]
    pixels = found.numel() // channels
    add_kernel[(triton.cdiv(pixels, 128),)](found, bias, residual, out, pixels, channels, 128)
    return out
