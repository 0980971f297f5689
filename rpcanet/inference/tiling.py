"""A network on pictures of any size: padding to a multiple, and overlapping tiles where a picture is too large."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..networks.unfolding import Decomposition, require_image

Network = Callable[[Tensor], Decomposition]


def padded(net: Network, image: Tensor, multiple: int = 32) -> Decomposition:
    """The network's answer for `image` zero-padded at the bottom and right to a multiple, cropped back.

    image: (batch, 1, height, width), normalised, so that 0 is the mean grey level; ValueError for another shape,
    and for a multiple below 1.

    >>> from unfoldkit.rpcanet import RPCANet
    >>> padded(RPCANet(stages=1), torch.rand(1, 1, 30, 41)).object.shape
    torch.Size([1, 1, 30, 41])
    """
    require_image(image)
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1, got {multiple}")
    height, width = image.shape[2:]
    answer = net(F.pad(image, (0, -width % multiple, 0, -height % multiple)))
    background, object_, restoration = (part[..., :height, :width] for part in answer[:3])
    return Decomposition(background, object_, restoration)


def tiled(net: Network, image: Tensor, tile: int = 1024, overlap: int = 64) -> Decomposition:
    """The network's answer for `image`, put together from overlapping tiles where a side exceeds `tile`.

    image: (batch, 1, height, width). Tiles of at most (tile, tile) cover it evenly, `overlap` pixels or more
    shared by neighbours; there their answers x_t are blended, sum_t w_t x_t / sum_t w_t, with weights that rise
    linearly from a tile's border over the overlap (the picture's own borders aside).

    Raises ValueError where tile does not exceed twice the overlap, or image has another shape.

    >>> from unfoldkit.rpcanet import RPCANet
    >>> with torch.no_grad():
    ...     tiled(RPCANet(stages=1).eval(), torch.rand(1, 1, 90, 41), tile=48, overlap=16).object.shape
    torch.Size([1, 1, 90, 41])
    """
    if not 0 < 2 * overlap < tile:
        raise ValueError(f"tile must exceed twice the overlap, got tile {tile} and overlap {overlap}")
    require_image(image)
    height, width = image.shape[2:]
    if max(height, width) <= tile:
        return net(image)
    parts = [torch.zeros_like(image) for _ in range(3)]
    total = image.new_zeros(height, width)
    for top in _starts(height, tile, overlap):
        for left in _starts(width, tile, overlap):
            rows, columns = slice(top, min(top + tile, height)), slice(left, min(left + tile, width))
            weight = torch.outer(_ramp(rows, height, overlap, image), _ramp(columns, width, overlap, image))
            for part, answer in zip(parts, net(image[..., rows, columns])[:3], strict=True):
                part[..., rows, columns] += weight * answer
            total[rows, columns] += weight
    background, object_, restoration = (part / total for part in parts)
    return Decomposition(background, object_, restoration)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along an axis: evenly from 0 to length - tile, neighbours sharing at least `overlap`."""
    if length <= tile:
        return [0]
    steps = -(-(length - tile) // (tile - overlap))
    return [round(k * (length - tile) / steps) for k in range(steps + 1)]


def _ramp(span: slice, length: int, overlap: int, like: Tensor) -> Tensor:
    """A tile's weights along an axis: from 1 / (overlap + 1) at a border inside the picture up to 1."""
    position = torch.arange(span.start, span.stop, device=like.device, dtype=like.dtype)
    rise = position - span.start + 1 if span.start > 0 else torch.full_like(position, torch.inf)
    fall = span.stop - position if span.stop < length else torch.full_like(position, torch.inf)
    return (torch.minimum(rise, fall) / (overlap + 1)).clamp(max=1)
