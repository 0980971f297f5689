"""Pictures cut into tiles and put together again, scaled and cast on the way: one pass each."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 64


@triton.jit
def cut_kernel(
    images,
    scale,
    tiles,
    height,
    width,
    rows,
    columns,
    before,
    pixels,
    C: tl.constexpr,
    STEP: tl.constexpr,
    SIZE: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """tiles[n, r, s, y, x, c] = images[n, r STEP + y - before, s STEP + x - before, c] / scale."""
    here, c = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.arange(0, C)
    x, rest = here % SIZE, here // SIZE
    y, tile = rest % SIZE, rest // SIZE
    column, rest = tile % columns, tile // columns
    row, image = rest % rows, rest // rows
    y, x = row * STEP + y - before, column * STEP + x - before
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width) & (here < pixels)
    there = (image * height + y) * width + x
    value = tl.load(images + there[:, None] * C + c[None, :], inside[:, None], 0.0).to(tl.float32)
    value = (value / tl.load(scale)).to(tiles.dtype.element_ty)
    tl.store(tiles + here[:, None] * C + c[None, :], value, (here < pixels)[:, None])


@triton.jit
def join_kernel(
    tiles,
    scale,
    images,
    height,
    width,
    rows,
    columns,
    before,
    pixels,
    C: tl.constexpr,
    STEP: tl.constexpr,
    SIZE: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """The transpose of `cut_kernel`: tiles that overlap add up."""
    here, c = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS), tl.arange(0, C)
    x, rest = here % width + before, here // width
    y, image = rest % height + before, rest // height
    row, column = y // STEP, x // STEP
    y, x = y % STEP, x % STEP
    found = tl.zeros((PIXELS, C), tl.float32)
    for up in tl.static_range(2 if SIZE > STEP else 1):
        for left in tl.static_range(2 if SIZE > STEP else 1):
            r, s, v, u = row - up, column - left, y + up * STEP, x + left * STEP
            held = (r >= 0) & (r < rows) & (s >= 0) & (s < columns) & (v < SIZE) & (u < SIZE)
            there = (((image * rows + r) * columns + s) * SIZE + v) * SIZE + u
            held = (held & (here < pixels))[:, None]
            found += tl.load(tiles + there[:, None] * C + c[None, :], held, 0.0).to(tl.float32)
    found = (found * tl.load(scale)).to(images.dtype.element_ty)
    tl.store(images + here[:, None] * C + c[None, :], found, (here < pixels)[:, None])


def cut(
    images: Tensor,
    scale: Tensor,
    dtype: torch.dtype,
    rows: int,
    columns: int,
    step: int,
    size: int,
    before: int,
) -> Tensor:
    """images (N, C, H, W), channels-last, over the scale: (N rows columns, size, size, C), zero outside.

    C is a power of two; size at most twice the step.
    """
    count, channels, height, width = images.shape
    tiles = torch.empty(count * rows * columns, size, size, channels, dtype=dtype, device=images.device)
    pixels = tiles.numel() // channels
    cut_kernel[(triton.cdiv(pixels, PIXELS),)](
        images, scale, tiles, height, width, rows, columns, before, pixels, channels, step, size, PIXELS
    )
    return tiles


def join(
    tiles: Tensor,
    scale: Tensor,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    rows: int,
    columns: int,
    step: int,
    before: int,
) -> Tensor:
    """The transpose of `cut` times the scale: channels-last pictures of shape (N, H, W)."""
    (count, height, width), size, channels = shape, tiles.shape[1], tiles.shape[-1]
    out = torch.empty(
        count, channels, height, width, dtype=dtype, device=tiles.device, memory_format=torch.channels_last
    )
    pixels = out.numel() // channels
    join_kernel[(triton.cdiv(pixels, PIXELS),)](
        tiles, scale, out, height, width, rows, columns, before, pixels, channels, step, size, PIXELS
    )
    return out
