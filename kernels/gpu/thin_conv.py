"""3x3 convolutions from one channel or to one, and their gradients, each in one pass over the many channels.

With the nine shifts t, channels last and a plane x or y of one channel,

    from one:  out[p, c] = b_c + sum_t x[p + t] w_t[c]
    to one:    y[p] = b + sum_t s_t[p + t],   s_t[p] = sum_c in[p, c] w_t[c]

The shifted planes of a pixel are the columns of a matrix that is gathered on chip; a column of ones gives the
bias's gradient with the weight's. Products are TF32 with float32 sums.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import programs_on

PIXELS, WAVES = 128, 8
COLUMNS = 16  # nine shifts, one column of ones, and zeros


@triton.jit
def _columns(plane, pixel, height, width, pixels, SIGN: tl.constexpr):
    """(pixels, 16): the plane at pixel + SIGN t for the nine shifts t, zero outside the picture, then ones."""
    column = tl.arange(0, 16)[None, :]
    dy, dx = SIGN * (column // 3 - 1), SIGN * (column % 3 - 1)
    row, place = ((pixel // width) % height)[:, None] + dy, (pixel % width)[:, None] + dx
    inside = (row >= 0) & (row < height) & (place >= 0) & (place < width) & (pixel < pixels)[:, None]
    values = tl.load(plane + pixel[:, None] + dy * width + dx, inside & (column < 9), 0.0).to(tl.float32)
    return tl.where(column == 9, tl.where((pixel < pixels)[:, None], 1.0, 0.0), values)


@triton.jit
def spread_kernel(
    plane,
    weight,
    relu_of,
    out,
    height,
    width,
    pixels,
    SIGN: tl.constexpr,
    RELU: tl.constexpr,
    MASK: tl.constexpr,
    C: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """out[p, c] = sum_k columns[p, k] weight[k, c]; MASK: 0 where relu_of is not positive."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    c = tl.arange(0, C)
    w = tl.load(weight + tl.arange(0, 16)[:, None] * C + c[None, :])
    found = tl.dot(_columns(plane, pixel, height, width, pixels, SIGN), w)
    here, inside = pixel[:, None] * C + c[None, :], (pixel < pixels)[:, None]
    if RELU:
        found = tl.maximum(found, 0.0)
    if MASK:
        found = tl.where(tl.load(relu_of + here, inside, 0.0) > 0, found, 0.0)
    tl.store(out + here, found.to(out.dtype.element_ty), inside)


@triton.jit
def gather_kernel(
    features,
    relu_of,
    plane,
    weight,
    shares,
    of_weight,
    height,
    width,
    pixels,
    SIGN: tl.constexpr,
    RELU: tl.constexpr,
    SHARES: tl.constexpr,
    PRODUCT: tl.constexpr,
    C: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """shares[k, p] = sum_c features[p, c] weight[k, c]; of_weight[program, k, c] = sum_p columns features.

    RELU: features count where relu_of is positive alone.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    c, k = tl.arange(0, C), tl.arange(0, 16)
    w = tl.load(weight + k[None, :] * C + c[:, None])
    total = tl.zeros((16, C), tl.float32)
    for tile in range(program, tl.cdiv(pixels, PIXELS), programs):
        pixel = tile * PIXELS + tl.arange(0, PIXELS)
        here, inside = pixel[:, None] * C + c[None, :], (pixel < pixels)[:, None]
        found = tl.load(features + here, inside, 0.0).to(tl.float32)
        if RELU:
            found = tl.where(tl.load(relu_of + here, inside, 0.0) > 0, found, 0.0)
        if SHARES:
            share = tl.dot(found, w)
            tl.store(shares + k[None, :] * pixels + pixel[:, None], share, inside & (k[None, :] < 9))
        if PRODUCT:
            columns = _columns(plane, pixel, height, width, pixels, SIGN)
            total = tl.dot(tl.trans(columns), found, total)
    if PRODUCT:
        tl.store(of_weight + program * 16 * C + k[:, None] * C + c[None, :], total)


@triton.jit
def sum_kernel(
    shares, bias, out, height, width, pixels, SIGN: tl.constexpr, BIAS: tl.constexpr, PIXELS: tl.constexpr
):
    """out[p] = bias + sum_t shares[t, p + SIGN t]."""
    pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    row, place = (pixel // width) % height, pixel % width
    found = tl.zeros((PIXELS,), tl.float32)
    if BIAS:
        found += tl.load(bias).to(tl.float32)
    for t in tl.static_range(9):
        dy, dx = SIGN * (t // 3 - 1), SIGN * (t % 3 - 1)
        inside = (row + dy >= 0) & (row + dy < height) & (place + dx >= 0) & (place + dx < width)
        found += tl.load(shares + t * pixels + pixel + dy * width + dx, inside & (pixel < pixels), 0.0)
    tl.store(out + pixel, found, pixel < pixels)


def from_plane(x: Tensor, weight: Tensor, bias: Tensor, relu: bool, dtype: torch.dtype) -> Tensor:
    """x (N, 1, H, W), weight (C, 1, 3, 3) and bias (C,) to (N, C, H, W) of `dtype`, channels-last."""
    rows = torch.cat((weight.float().reshape(-1, 9).T, bias.float()[None]))
    return _spread(x, rows, 1, relu, dtype)


def from_plane_backward(
    grad: Tensor, out: Tensor, x: Tensor, weight: Tensor, relu: bool, for_x: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of x, weight and bias; with `relu` that of the rectifier's input is taken from its output."""
    rows = weight.float().reshape(-1, 9).T
    shares, total = _gather(grad, out if relu else None, x, rows, 1, shares=for_x)
    of_x = _sum(shares, None, x, -1) if for_x else None
    return of_x, total[:9].T.reshape(weight.shape).to(weight.dtype), total[9].to(weight.dtype)


def to_plane(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """features (N, C, H, W), channels-last, weight (1, C, 3, 3) and bias (1,) to float32 (N, 1, H, W)."""
    shares, _ = _gather(features, None, None, weight.float().reshape(-1, 9).T, 1, shares=True)
    return _sum(shares, bias, features[:, :1], 1)


def to_plane_backward(
    grad: Tensor, features: Tensor, weight: Tensor, rectified: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of features, weight and bias; rectified: features are a rectifier's output, its input is meant."""
    rows = weight.float().reshape(-1, 9).T
    of_features = _spread(grad, rows, -1, False, features.dtype, features if rectified else None)
    _, total = _gather(features, None, grad, rows, -1, shares=False)
    return (
        of_features,
        total[:9].T.reshape(weight.shape).to(weight.dtype),
        grad.sum().reshape(1).to(weight.dtype),
    )


def _padded(rows: Tensor) -> Tensor:
    """(16, C), the rest zeros."""
    out = rows.new_zeros(COLUMNS, rows.shape[1])
    out[: len(rows)] = rows
    return out


def _spread(
    plane: Tensor, rows: Tensor, sign: int, relu: bool, dtype: torch.dtype, relu_of: Tensor | None = None
) -> Tensor:
    images, _, height, width = plane.shape
    channels, pixels = rows.shape[1], plane.numel()
    layout = torch.channels_last
    out = torch.empty(images, channels, height, width, dtype=dtype, device=plane.device, memory_format=layout)
    spread_kernel[(triton.cdiv(pixels, PIXELS),)](
        plane.contiguous(),
        _padded(rows),
        out if relu_of is None else relu_of,
        out,
        height,
        width,
        pixels,
        sign,
        relu,
        relu_of is not None,
        channels,
        PIXELS,
    )
    return out


def _gather(
    features: Tensor, relu_of: Tensor | None, plane: Tensor | None, rows: Tensor, sign: int, shares: bool
) -> tuple[Tensor, Tensor]:
    images, channels, height, width = features.shape
    pixels, device = images * height * width, features.device
    programs = programs_on(device, triton.cdiv(pixels, PIXELS), WAVES)
    parts = torch.empty(9 if shares else 0, pixels, device=device)
    product = torch.empty(programs if plane is not None else 0, COLUMNS, channels, device=device)
    gather_kernel[(programs,)](
        features,
        features if relu_of is None else relu_of,
        features if plane is None else plane.contiguous(),
        _padded(rows),
        parts,
        product,
        height,
        width,
        pixels,
        sign,
        relu_of is not None,
        shares,
        plane is not None,
        channels,
        PIXELS,
    )
    return parts, product.sum(0)


def _sum(shares: Tensor, bias: Tensor | None, like: Tensor, sign: int) -> Tensor:
    images, _, height, width = like.shape
    pixels = images * height * width
    out = torch.empty(images, 1, height, width, device=like.device)
    block = 512
    sum_kernel[(triton.cdiv(pixels, block),)](
        shares, shares if bias is None else bias, out, height, width, pixels, sign, bias is not None, block
    )
    return out
