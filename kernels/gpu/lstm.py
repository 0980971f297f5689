"""The elementwise part of a convolutional LSTM, forward and backward, in one pass each.

    c = f c' + i j,  h = o tanh(c)      f, i, o = sigmoid(gates + bias), j = tanh(gates + bias)

of gates side by side in the order f, i, o, j; without a state before, of i, o, j: c = i j and h = o c.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import programs_on

PIXELS, WAVES = 64, 8


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _before_activation(gates, bias, pixel, inside, WHICH: tl.constexpr, C: tl.constexpr, ALL: tl.constexpr):
    c = WHICH * C + tl.arange(0, C)
    value = tl.load(gates + pixel[:, None] * ALL + c[None, :], inside, 0.0).to(tl.float32)
    return value + tl.load(bias + c)[None, :]


@triton.jit
def _gates(gates, bias, pixel, inside, FIRST: tl.constexpr, C: tl.constexpr):
    """f, i, o, j, each (pixels, C); f is zero where there is no cell before."""
    ALL: tl.constexpr = 3 * C if FIRST else 4 * C
    START: tl.constexpr = 0 if FIRST else 1
    i = tl.sigmoid(_before_activation(gates, bias, pixel, inside, START, C, ALL))
    o = tl.sigmoid(_before_activation(gates, bias, pixel, inside, START + 1, C, ALL))
    j = _tanh(_before_activation(gates, bias, pixel, inside, START + 2, C, ALL))
    f = tl.zeros_like(i)
    if not FIRST:
        f = tl.sigmoid(_before_activation(gates, bias, pixel, inside, 0, C, ALL))
    return f, i, o, j


@triton.jit
def forward_kernel(
    gates, bias, before, hidden, cell, pixels, FIRST: tl.constexpr, C: tl.constexpr, PIXELS: tl.constexpr
):
    pixel, c = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.arange(0, C)
    here, inside = pixel[:, None] * C + c[None, :], (pixel < pixels)[:, None]
    f, i, o, j = _gates(gates, bias, pixel, inside, FIRST, C)
    found = i * j
    out = found
    if not FIRST:
        found += f * tl.load(before + here, inside, 0.0).to(tl.float32)
        out = _tanh(found)
    tl.store(cell + here, found.to(cell.dtype.element_ty), inside)
    tl.store(hidden + here, (o * out).to(hidden.dtype.element_ty), inside)


@triton.jit
def _stored(to, grad, inside):
    """A gate's gradient, written; its sum over pixels."""
    tl.store(to, grad.to(to.dtype.element_ty), inside)
    return tl.sum(tl.where(inside, grad, 0.0), 0)


@triton.jit
def backward_kernel(
    gates,
    bias,
    before,
    of_hidden,
    of_cell,
    of_gates,
    of_before,
    of_bias,
    pixels,
    FIRST: tl.constexpr,
    C: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """of_bias (programs, 4 C or 3 C): a program's share."""
    ALL: tl.constexpr = 3 * C if FIRST else 4 * C
    START: tl.constexpr = 0 if FIRST else 1
    program, programs, c = tl.program_id(0), tl.num_programs(0), tl.arange(0, C)
    of_f = tl.zeros((C,), tl.float32)
    of_i, of_o, of_j = of_f, of_f, of_f
    for tile in range(program, tl.cdiv(pixels, PIXELS), programs):
        pixel = tile * PIXELS + tl.arange(0, PIXELS)
        here, inside = pixel[:, None] * C + c[None, :], (pixel < pixels)[:, None]
        f, i, o, j = _gates(gates, bias, pixel, inside, FIRST, C)
        gh = tl.load(of_hidden + here, inside, 0.0).to(tl.float32)
        gc = tl.load(of_cell + here, inside, 0.0).to(tl.float32)
        to = of_gates + pixel[:, None] * ALL + c[None, :]
        if FIRST:
            out = i * j
            gc += gh * o
        else:
            c_before = tl.load(before + here, inside, 0.0).to(tl.float32)
            out = _tanh(i * j + f * c_before)
            gc += gh * o * (1 - out * out)
            of_f += _stored(to, gc * c_before * f * (1 - f), inside)
            tl.store(of_before + here, (gc * f).to(of_before.dtype.element_ty), inside)
        of_i += _stored(to + START * C, gc * j * i * (1 - i), inside)
        of_o += _stored(to + (START + 1) * C, gh * out * o * (1 - o), inside)
        of_j += _stored(to + (START + 2) * C, gc * i * (1 - j * j), inside)
    share = of_bias + program * ALL + c
    if not FIRST:
        tl.store(share, of_f)
    tl.store(share + START * C, of_i)
    tl.store(share + (START + 1) * C, of_o)
    tl.store(share + (START + 2) * C, of_j)


def lstm(gates: Tensor, bias: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """gates (N, 4 C or 3 C, H, W) and before (N, C, H, W), channels-last, bias float32: hidden and cell."""
    images, every, height, width = gates.shape
    channels = every // (3 if before is None else 4)
    like = gates[:, :channels]
    hidden, cell = (torch.empty_like(like, memory_format=torch.channels_last) for _ in range(2))
    pixels = images * height * width
    forward_kernel[(triton.cdiv(pixels, PIXELS),)](
        gates,
        bias,
        gates if before is None else before,
        hidden,
        cell,
        pixels,
        before is None,
        channels,
        PIXELS,
    )
    return hidden, cell


def lstm_backward(
    of_hidden: Tensor, of_cell: Tensor, gates: Tensor, bias: Tensor, before: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of gates, of bias and of the cell before."""
    images, every, height, width = gates.shape
    channels = every // (3 if before is None else 4)
    of_gates = torch.empty_like(gates)
    of_before = None if before is None else torch.empty_like(before)
    pixels = images * height * width
    programs = programs_on(gates.device, triton.cdiv(pixels, PIXELS), WAVES)
    of_bias = torch.empty(programs, every, device=gates.device)
    backward_kernel[(programs,)](
        gates,
        bias,
        gates if before is None else before,
        of_hidden,
        of_cell,
        of_gates,
        gates if of_before is None else of_before,
        of_bias,
        pixels,
        before is None,
        channels,
        PIXELS,
    )
    return of_gates, of_bias.sum(0), of_before
