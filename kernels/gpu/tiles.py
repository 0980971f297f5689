"""Pictures cut into tiles and put together again, scaled and cast on the way: one pass each."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def cut_kernel(
    images, scale, tiles, height, width, channels, rows, columns, step, before, size, samples,
    BLOCK: tl.constexpr,
):
    """tiles[n, r, s, y, x, c] = images[n, r step + y - before, s step + x - before, c] / scale."""
    here = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    c, rest = here % channels, here // channels
    x, rest = rest % size, rest // size
    y, tile = rest % size, rest // size
    column, rest = tile % columns, tile // columns
    row, image = rest % rows, rest // rows
    y, x = row * step + y - before, column * step + x - before
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width) & (here < samples)
    value = tl.load(images + ((image * height + y) * width + x) * channels + c, inside, 0.0).to(tl.float32)
    value /= tl.load(scale)
    tl.store(tiles + here, value.to(tiles.dtype.element_ty), here < samples)


@triton.jit
def join_kernel(
    tiles, scale, images, height, width, channels, rows, columns, step, before, size, samples,
    OVERLAP: tl.constexpr, BLOCK: tl.constexpr,
):
    """The transpose of `cut_kernel`: tiles that overlap add up."""
    here = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    c, rest = here % channels, here // channels
    x, rest = rest % width + before, rest // width
    y, image = rest % height + before, rest // height
    inside = here < samples
    row, column = y // step, x // step
    y, x = y % step, x % step
    found = tl.zeros((BLOCK,), tl.float32)
    for up in tl.static_range(2 if OVERLAP else 1):
        for left in tl.static_range(2 if OVERLAP else 1):
            r, s, v, u = row - up, column - left, y + up * step, x + left * step
            there = (((image * rows + r) * columns + s) * size + v) * size + u
            held = inside & (r >= 0) & (r < rows) & (s >= 0) & (s < columns) & (v < size) & (u < size)
            found += tl.load(tiles + there * channels + c, held, 0.0).to(tl.float32)
    tl.store(images + here, (found * tl.load(scale)).to(images.dtype.element_ty), inside)


def cut(
    images: Tensor, scale: Tensor, dtype: torch.dtype, rows: int, columns: int, step: int, size: int, before: int
) -> Tensor:
    """images (N, C, H, W), channels-last, over the scale: (N rows columns, size, size, C), zero outside."""
    count, channels, height, width = images.shape
    tiles = torch.empty(count * rows * columns, size, size, channels, dtype=dtype, device=images.device)
    samples = tiles.numel()
    cut_kernel[(triton.cdiv(samples, BLOCK),)](
        images, scale, tiles, height, width, channels, rows, columns, step, before, size, samples, BLOCK
    )
    return tiles


def join(
    tiles: Tensor, scale: Tensor, shape: tuple[int, int, int], dtype: torch.dtype,
    rows: int, columns: int, step: int, before: int,
) -> Tensor:
    """The transpose of `cut` times the scale: channels-last pictures of shape (N, H, W)."""
    (count, height, width), size, channels = shape, tiles.shape[1], tiles.shape[-1]
    out = torch.empty(
        count, channels, height, width, dtype=dtype, device=tiles.device, memory_format=torch.channels_last
    )
    samples = out.numel()
    join_kernel[(triton.cdiv(samples, BLOCK),)](
        tiles, scale, out, height, width, channels, rows, columns, step, before, size, samples, size > step, BLOCK
    )
    return out
