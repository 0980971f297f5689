"""Overlap-save: a large convolution as one small complex matrix product a frequency.

A plane is cut into tiles of T x T samples whose first corners are V = T - k + 1 apart. A circular
correlation of length T with a k x k window is the linear one on V x V of the samples, so that

    out = first V x V of F^-1( X_f S_f ),   S_f = sum_j w_j exp(2 pi i f j / T),

with X_f (tiles, channels in) the tiles' spectra and S_f (channels in, channels out). Everything is laid out
with the frequency first, (T, T / 2 + 1, tiles, channels), so that the products need no further copy.
Source: Oppenheim and Schafer, Discrete-Time Signal Processing, section 8.7.3.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CACHED = 2**19  # real numbers of a strip's spectra, so that they stay in the cores' caches


class Tiling(NamedTuple):
    """rows x columns tiles of size x size samples, their corners `step` (down, across) apart."""

    size: int
    step: tuple[int, int]
    rows: int
    columns: int


class Strip(NamedTuple):
    """Some images and some rows of their tiles: what is transformed at a time."""

    images: slice
    first_row: int
    rows: int


def tiling(size: int, window: tuple[int, int], height: int, width: int) -> Tiling:
    """The tiles of `size` that cover height x width results of a convolution with a window (h, w)."""
    down, across = size - window[0] + 1, size - window[1] + 1
    return Tiling(size, (down, across), -(-height // down), -(-width // across))


def strips(grid: Tiling, images: int, channels: int, samples: int) -> Iterator[Strip]:
    """Cut the work so that the spectra of `channels` planes take a quarter of `samples` at most, and CACHED."""
    row = grid.columns * channels * grid.size * (grid.size + 2)
    rows = max(1, min(samples // 4, CACHED) // row)
    together = max(1, rows // grid.rows)
    rows = min(rows, grid.rows)
    even = -(-grid.rows // -(-grid.rows // rows))
    for image in range(0, images, together):
        for first in range(0, grid.rows, even):
            yield Strip(slice(image, image + together), first, min(even, grid.rows - first))


@lru_cache(maxsize=32)
def _roots(size: int, frequencies: int, window: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """exp(2 pi i f j / T), (frequencies, window)."""
    turns = torch.outer(torch.arange(frequencies), torch.arange(window)) % size
    angle = turns.double() * (2 * math.pi / size)
    return torch.polar(torch.ones_like(angle), angle).to(device, dtype)


def spectrum_of(weight: Tensor, size: int) -> Tensor:
    """S_f of a weight (O, I, h, w), as (T, T / 2 + 1, I, O): two products with pruned Fourier matrices."""
    outputs, inputs, height, width = weight.shape
    half = size // 2 + 1
    complex_type = weight.dtype.to_complex()
    across = torch.view_as_real(_roots(size, half, width, complex_type, weight.device))
    taps = weight.permute(2, 3, 1, 0).reshape(height, width, inputs * outputs)
    parts = (across.movedim(-1, 0).reshape(2 * half, width) @ taps).reshape(height, 2, half, -1)
    rows = torch.complex(parts[:, 0], parts[:, 1]).reshape(height, -1)
    down = _roots(size, size, height, complex_type, weight.device)
    return (down @ rows).reshape(size, half, inputs, outputs)


def window_of(product: Tensor, height: int, width: int) -> Tensor:
    """Lags (O, I, height, width) of the correlation whose spectrum is (T, T / 2 + 1, I, O)."""
    size, half, inputs, outputs = product.shape
    down = _roots(size, size, height, product.dtype, product.device).mT
    across = _roots(size, half, width, product.dtype, product.device).mT
    twice = torch.full((half,), 2.0, dtype=product.dtype, device=product.device)
    twice[0] = twice[-1] = 1
    rows = (down @ product.reshape(size, -1)).reshape(height, half, inputs * outputs)
    lags = ((across * twice) @ rows).real / size**2
    return lags.reshape(height, width, inputs, outputs).permute(3, 2, 0, 1)


def tile_spectra(
    plane: Tensor, grid: Tiling, strip: Strip, before: tuple[int, int], extent: tuple[int, int]
) -> Tensor:
    """Spectra (T, T / 2 + 1, tiles, channels) of the tiles of a strip.

    The first tile starts `before` samples above and left of the plane (N, C, H, W), which is continued by
    zeros; of each tile the first `extent` samples down and across count, the others are zero.
    """
    down, across = grid.step
    top = strip.first_row * down - before[0]
    band = _window(plane[strip.images], -2, top, (strip.rows - 1) * down + extent[0])
    band = _window(band, -1, -before[1], (grid.columns - 1) * across + extent[1])
    tiles = band.unfold(-2, extent[0], down).unfold(-2, extent[1], across)
    frequency_first = torch.fft.rfft(tiles, n=grid.size).permute(4, 5, 0, 2, 3, 1).flatten(2, 4)
    return torch.fft.fft(frequency_first, n=grid.size, dim=0)


def _window(plane: Tensor, dim: int, start: int, length: int) -> Tensor:
    """Samples start ... start + length - 1 along `dim`, zero outside the plane."""
    size = plane.shape[dim]
    low = min(max(start, 0), size)
    high = max(min(start + length, size), low)
    before = min(max(low - start, 0), length)
    margins = (before, length - before - (high - low))
    return F.pad(plane.narrow(dim, low, high - low), margins if dim == -1 else (0, 0, *margins))


def planes_of(spectra: Tensor, grid: Tiling, strip: Strip, first: tuple[int, int]) -> Tensor:
    """The `step` samples from `first` on of every tile, side by side: (images, channels, rows, columns)."""
    rows, columns = (slice(start, start + step) for start, step in zip(first, grid.step, strict=True))
    down = torch.fft.ifft(spectra, dim=0)[rows]
    tiles = down.unflatten(2, (-1, strip.rows, grid.columns)).permute(2, 5, 3, 0, 4, 1)
    return torch.fft.irfft(tiles, n=grid.size)[..., columns].flatten(4, 5).flatten(2, 3)
