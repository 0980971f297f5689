"""The elementwise part of a convolutional LSTM, forward and backward, in one pass each.

    c = f c' + i j,  h = o tanh(c)      f, i, o = sigmoid(gates + bias), j = tanh(gates + bias)

of gates side by side in the order f, i, o, j; without a state before, of i, o, j: c = i j and h = o c.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 64


@triton.jit
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def _gate(gates, bias, pixel, inside, WHICH: tl.constexpr, C: tl.constexpr, ALL: tl.constexpr):
    c = tl.arange(0, C)
    value = tl.load(gates + pixel[:, None] * ALL + WHICH * C + c[None, :], inside, 0.0).to(tl.float32)
    return value + tl.load(bias + WHICH * C + c)[None, :]


@triton.jit
def forward_kernel(
    gates, bias, before, hidden, cell, pixels, FIRST: tl.constexpr, C: tl.constexpr, PIXELS: tl.constexpr
):
    pixel, c = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.arange(0, C)
    here, inside = pixel[:, None] * C + c[None, :], (pixel < pixels)[:, None]
    ALL: tl.constexpr = 3 * C if FIRST else 4 * C
    START: tl.constexpr = 0 if FIRST else 1
    i = tl.sigmoid(_gate(gates, bias, pixel, inside, START, C, ALL))
    o = tl.sigmoid(_gate(gates, bias, pixel, inside, START + 1, C, ALL))
    j = _tanh(_gate(gates, bias, pixel, inside, START + 2, C, ALL))
    found = i * j
    out = found
    if not FIRST:
        f = tl.sigmoid(_gate(gates, bias, pixel, inside, 0, C, ALL))
        found += f * tl.load(before + here, inside, 0.0).to(tl.float32)
        out = _tanh(found)
    tl.store(cell + here, found.to(cell.dtype.element_ty), inside)
    tl.store(hidden + here, (o * out).to(hidden.dtype.element_ty), inside)


@triton.jit
def backward_kernel(
    gates,
    bias,
    before,
    of_hidden,
    of_cell,
    of_gates,
    of_before,
    pixels,
    FIRST: tl.constexpr,
    C: tl.constexpr,
    PIXELS: tl.constexpr,
):
    pixel, c = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.arange(0, C)
    here, inside = pixel[:, None] * C + c[None, :], (pixel < pixels)[:, None]
    ALL: tl.constexpr = 3 * C if FIRST else 4 * C
    START: tl.constexpr = 0 if FIRST else 1
    i = tl.sigmoid(_gate(gates, bias, pixel, inside, START, C, ALL))
    o = tl.sigmoid(_gate(gates, bias, pixel, inside, START + 1, C, ALL))
    j = _tanh(_gate(gates, bias, pixel, inside, START + 2, C, ALL))
    gh = tl.load(of_hidden + here, inside, 0.0).to(tl.float32)
    gc = tl.load(of_cell + here, inside, 0.0).to(tl.float32)
    kind = of_gates.dtype.element_ty
    to = of_gates + pixel[:, None] * ALL + c[None, :]
    if FIRST:
        out = i * j
        gc += gh * o
    else:
        f = tl.sigmoid(_gate(gates, bias, pixel, inside, 0, C, ALL))
        c_before = tl.load(before + here, inside, 0.0).to(tl.float32)
        out = _tanh(i * j + f * c_before)
        gc += gh * o * (1 - out * out)
        tl.store(to, (gc * c_before * f * (1 - f)).to(kind), inside)
        tl.store(of_before + here, (gc * f).to(of_before.dtype.element_ty), inside)
    tl.store(to + START * C, (gc * j * i * (1 - i)).to(kind), inside)
    tl.store(to + (START + 1) * C, (gh * out * o * (1 - o)).to(kind), inside)
    tl.store(to + (START + 2) * C, (gc * i * (1 - j * j)).to(kind), inside)


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
) -> tuple[Tensor, Tensor | None]:
    """Gradients of gates and of the cell before."""
    images, every, height, width = gates.shape
    channels = every // (3 if before is None else 4)
    of_gates = torch.empty_like(gates)
    of_before = None if before is None else torch.empty_like(before)
    pixels = images * height * width
    backward_kernel[(triton.cdiv(pixels, PIXELS),)](
        gates,
        bias,
        gates if before is None else before,
        of_hidden,
        of_cell,
        of_gates,
        gates if of_before is None else of_before,
        pixels,
        before is None,
        channels,
        PIXELS,
    )
    return of_gates, of_before
