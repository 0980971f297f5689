"""A large window's convolution and both gradients as matrix products, for processors whose products are fast.

Overlap-save as in `overlap_save`, but each Fourier transform of T samples is a product with a real T x T matrix.
With tiles X (tiles, T, T, C), channels last throughout, so that no step moves data about between the products,

    Y = A_y X     (tiles, (fy, part), x, C)          half a spectrum down, parts real and imaginary
    Z = A_x Y     (tiles, fy, (fx, part), C)         across
    P = Z_f B_f   (tiles, fy, (fx, part), O)         B_f = [[Re S_f, Im S_f], [-Im S_f, Re S_f]]
    Q = C_x P     (tiles, fy, (part, x), O)          back, the V = T - k + 1 exact samples alone
    out = C_y Q   (tiles, y, x, O)

and the gradients are the transposes of these steps, in the reverse order. In half precision everything is
float16, with float32 sums, after scaling by powers of two: the relative error is near 1e-3.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SIZES = (32, 48, 64, 80, 96, 128)


class Grid(NamedTuple):
    """rows x columns tiles of `size` samples, `step` apart, over height x width results of a k x k window."""

    size: int
    step: int
    rows: int
    columns: int
    height: int
    width: int


class Transforms(NamedTuple):
    """The four matrices, each with the factor 1 / sqrt(T)."""

    down: Tensor  # A_y
    across: Tensor  # A_x
    back_across: Tensor  # C_x
    back_down: Tensor  # C_y


class Forward(NamedTuple):
    """The result, and what the gradients need again."""

    out: Tensor
    spectra: Tensor
    blocks: Tensor
    scales: Tensor


def grid_of(window: int, height: int, width: int) -> Grid:
    """The tiles with the fewest samples."""

    def of_size(size: int) -> Grid:
        step = size - window + 1
        return Grid(size, step, -(-height // step), -(-width // step), height, width)

    sizes = [size for size in SIZES if size >= 2 * window] or [4 * window]
    return min(map(of_size, sizes), key=lambda grid: grid.rows * grid.columns * grid.size**2)


def correlate(images: Tensor, weight: Tensor, grid: Grid, sign: int = 1) -> Forward:
    """`sign * F.conv2d(images, weight, padding="same")` of a square window.

    images: (N, C, H, W).  weight: (O, C, k, k) of the same dtype.
    """
    window, work = weight.shape[-1], working_dtype(images.dtype)
    transforms = transforms_of(grid.size, grid.step, work, images.device)
    blocks, weight_scale = blocks_of(weight, grid.size, work)
    image_scale = scale_of(images)
    spectra = analysed(overlapping_tiles(images, image_scale, work, grid, window), transforms)
    product = multiplied(spectra, blocks)
    tiles = synthesised(product, transforms)
    scales = torch.stack((image_scale, weight_scale))
    out = side_by_side(tiles, images, sign * image_scale * weight_scale, grid)
    return Forward(out, spectra, blocks, scales)


def gradients(grad: Tensor, found: Forward, window: int, grid: Grid, sign: int = 1) -> tuple[Tensor, Tensor]:
    """Those of images, in the dtype of `grad` (N, O, H, W), and of weight, in float32 or more."""
    work = found.spectra.dtype
    transforms = transforms_of(grid.size, grid.step, work, grad.device)
    scale = scale_of(grad)
    spectra = analysed_transposed(separate_tiles(grad, scale, work, grid), transforms)
    image_scale, weight_scale = found.scales
    tiles = synthesised_transposed(multiplied(spectra, found.blocks.mT), transforms)
    of_images = added_up(tiles, grad, sign * scale * weight_scale, grid, window)
    product = torch.bmm(by_frequency(found.spectra).mT, by_frequency(spectra))
    of_weight = window_of(product, window, grid.size) * (sign * scale * image_scale)
    return of_images, of_weight


def working_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float16 if dtype in (torch.float16, torch.bfloat16) else dtype


def scale_of(x: Tensor) -> Tensor:
    """The power of two, float32 or more, by whose division the largest entry lands between 1/2 and 1."""
    largest = torch.linalg.vector_norm(x, torch.inf).to(torch.promote_types(x.dtype, torch.float32))
    return torch.exp2(torch.frexp(largest).exponent.to(largest.dtype).clamp(-100, 100))


@lru_cache(maxsize=16)
def transforms_of(size: int, step: int, dtype: torch.dtype, device: torch.device) -> Transforms:
    half = size // 2 + 1
    turns = torch.outer(torch.arange(size), torch.arange(size)) % size
    cosine, sine = (
        f(turns.double() * (2 * math.pi / size)) / math.sqrt(size) for f in (torch.cos, torch.sin)
    )
    down = torch.stack((cosine[:half], -sine[:half]), 1).flatten(0, 1)
    real, imaginary = torch.cat((cosine, sine), 1), torch.cat((-sine, cosine), 1)
    across = torch.stack((real, imaginary), 1).flatten(0, 1)
    real, imaginary = torch.stack((cosine, -sine), 2).flatten(1), torch.stack((sine, cosine), 2).flatten(1)
    back_across = torch.cat((real[:step], imaginary[:step]))
    twice = torch.full((half,), 2.0).double()
    twice[0] = twice[-1] = 1
    back_down = (torch.stack((cosine[:, :half], -sine[:, :half]), 2) * twice[:, None]).flatten(1)[:step]
    return Transforms(*(x.to(device, dtype) for x in (down, across, back_across, back_down)))


@lru_cache(maxsize=16)
def _roots(size: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """exp(2 pi i f j / T), (size, window)."""
    angle = (torch.outer(torch.arange(size), torch.arange(window)) % size).double() * (2 * math.pi / size)
    return torch.polar(torch.ones_like(angle), angle).to(device, dtype)


def blocks_of(weight: Tensor, size: int, work: torch.dtype) -> tuple[Tensor, Tensor]:
    """B_f / scale, (fy fx, 2 C, 2 O), and the scale."""
    outputs, inputs, window, _ = weight.shape
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    roots = _roots(size, window, wide.dtype.to_complex(), weight.device)
    taps = wide.permute(2, 3, 1, 0).reshape(window, -1).to(roots.dtype)
    rows = (roots[: size // 2 + 1] @ taps).reshape(-1, window, inputs * outputs)
    spectrum = torch.view_as_real(roots @ rows).reshape(-1, inputs, outputs, 2)
    scale = scale_of(spectrum)
    real, imaginary = (spectrum / scale).to(work).unbind(-1)
    first, second = torch.cat((real, imaginary), 2), torch.cat((-imaginary, real), 2)
    return torch.cat((first, second), 1), scale


def window_of(product: Tensor, window: int, size: int) -> Tensor:
    """The transpose of `blocks_of` but for its scale: (fy fx, 2 C, 2 O) to (O, C, k, k), float32 or more."""
    frequencies, inputs, outputs = product.shape
    inputs, outputs = inputs // 2, outputs // 2
    wide = torch.promote_types(product.dtype, torch.float32)
    parts = product.view(frequencies, 2, inputs, 2, outputs).to(wide)
    real, imaginary = parts[:, 0, :, 0] + parts[:, 1, :, 1], parts[:, 0, :, 1] - parts[:, 1, :, 0]
    spectrum = torch.complex(real, imaginary).reshape(size // 2 + 1, size, inputs * outputs)
    roots = _roots(size, window, spectrum.dtype, product.device)
    rows = (roots.mH @ spectrum).reshape(size // 2 + 1, -1)
    lags = (roots[: size // 2 + 1].mH @ rows).real
    return lags.reshape(window, window, inputs, outputs).permute(3, 2, 0, 1)


def overlapping_tiles(images: Tensor, scale: Tensor, work: torch.dtype, grid: Grid, window: int) -> Tensor:
    """(N rows columns, T, T, C), the first corner half a window above and left of the picture."""
    before = window // 2
    if images.is_cuda:
        return _on_gpu().cut(images, scale, work, grid.rows, grid.columns, grid.step, grid.size, before)
    below, right = (
        (count - 1) * grid.step + grid.size - before - length
        for count, length in ((grid.rows, grid.height), (grid.columns, grid.width))
    )
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, before, right, before, below))
    tiles = padded.unfold(1, grid.size, grid.step).unfold(2, grid.size, grid.step).permute(0, 1, 2, 4, 5, 3)
    return _scaled(tiles, 1 / scale, work).flatten(0, 2)


def separate_tiles(grad: Tensor, scale: Tensor, work: torch.dtype, grid: Grid) -> Tensor:
    """(N rows columns, V, V, O)."""
    if grad.is_cuda:
        return _on_gpu().cut(grad, scale, work, grid.rows, grid.columns, grid.step, grid.step, 0)
    below, right = grid.rows * grid.step - grid.height, grid.columns * grid.step - grid.width
    padded = F.pad(grad.permute(0, 2, 3, 1), (0, 0, 0, right, 0, below))
    tiles = padded.view(len(grad), grid.rows, grid.step, grid.columns, grid.step, -1).transpose(2, 3)
    return _scaled(tiles, 1 / scale, work).flatten(0, 2)


def side_by_side(tiles: Tensor, like: Tensor, scale: Tensor, grid: Grid) -> Tensor:
    """The reverse of `separate_tiles`, channels-last (N, O, H, W)."""
    if like.is_cuda:
        shape = (len(like), grid.height, grid.width)
        return _on_gpu().join(tiles, scale, shape, like.dtype, grid.rows, grid.columns, grid.step, 0)
    whole = tiles.view(-1, grid.rows, grid.columns, *tiles.shape[1:]).transpose(2, 3)
    planes = _scaled(whole, scale, like.dtype).flatten(3, 4).flatten(1, 2)
    return planes[:, : grid.height, : grid.width].permute(0, 3, 1, 2)


def added_up(tiles: Tensor, like: Tensor, scale: Tensor, grid: Grid, window: int) -> Tensor:
    """The transpose of `overlapping_tiles`, channels-last (N, C, H, W)."""
    images, step, rest, before = len(like), grid.step, grid.size - grid.step, window // 2
    if like.is_cuda:
        shape = (images, grid.height, grid.width)
        return _on_gpu().join(tiles, scale, shape, like.dtype, grid.rows, grid.columns, step, before)
    tiles = tiles.view(images, grid.rows, grid.columns, grid.size, grid.size, -1)
    wide = tiles.new_zeros(images, grid.rows + 1, step, grid.columns + 1, step, tiles.shape[-1])
    spread = wide.transpose(2, 3)
    spread[:, :-1, :-1] = tiles[:, :, :, :step, :step]
    spread[:, :-1, 1:, :, :rest] += tiles[:, :, :, :step, step:]
    spread[:, 1:, :-1, :rest] += tiles[:, :, :, step:, :step]
    spread[:, 1:, 1:, :rest, :rest] += tiles[:, :, :, step:, step:]
    whole = wide.flatten(3, 4).flatten(1, 2)
    planes = whole[:, before : before + grid.height, before : before + grid.width]
    return _scaled(planes, scale, like.dtype).permute(0, 3, 1, 2)


def _on_gpu() -> Any:
    from ..gpu import tiles

    return tiles


def _scaled(x: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """x * scale, dense, in one pass."""
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    return torch.mul(x, scale.reshape(1), out=out)


def analysed(tiles: Tensor, transforms: Transforms) -> Tensor:
    """Z of overlapping tiles X, (tiles, fy, fx, 2 C)."""
    return _two_products(transforms.down, transforms.across, tiles)


def analysed_transposed(tiles: Tensor, transforms: Transforms) -> Tensor:
    """What `synthesised` makes Q's gradients of: (tiles, V, V, O) to (tiles, fy, fx, 2 O)."""
    return _two_products(transforms.back_down.T, transforms.back_across.T, tiles)


def _two_products(down: Tensor, across: Tensor, tiles: Tensor) -> Tensor:
    count, height, width, channels = tiles.shape
    rows = torch.matmul(down, tiles.reshape(count, height, width * channels))
    rows = rows.view(count * (len(down) // 2), 2 * width, channels)
    both = torch.bmm(across.expand(len(rows), -1, -1), rows)
    return both.view(count, len(down) // 2, len(across) // 2, 2 * channels)


def synthesised(product: Tensor, transforms: Transforms) -> Tensor:
    """out of P, (tiles, V, V, O)."""
    return _two_products_back(transforms.back_across, transforms.back_down, product)


def synthesised_transposed(product: Tensor, transforms: Transforms) -> Tensor:
    """X's gradients of Z's, (tiles, T, T, C)."""
    return _two_products_back(transforms.across.T, transforms.down.T, product)


def _two_products_back(across: Tensor, down: Tensor, product: Tensor) -> Tensor:
    count, half, size, double = product.shape
    parts = product.view(count * half, 2 * size, double // 2)
    rows = torch.bmm(across.expand(len(parts), -1, -1), parts)
    out = torch.matmul(down, rows.view(count, 2 * half, -1))
    return out.view(count, len(down), len(across) // 2, double // 2)


def by_frequency(spectra: Tensor) -> Tensor:
    """(frequencies, tiles, 2 C), a view."""
    return spectra.flatten(1, 2).transpose(0, 1)


def multiplied(spectra: Tensor, blocks: Tensor) -> Tensor:
    """Z_f B_f, in the layout of Z."""
    count, half, size, _ = spectra.shape
    product = spectra.new_empty(count, half, size, blocks.shape[-1])
    torch.bmm(by_frequency(spectra), blocks, out=by_frequency(product))
    return product
