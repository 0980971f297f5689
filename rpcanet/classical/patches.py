"""Pictures as stacks of overlapping patches, and back."""

from collections.abc import Callable

import torch
from torch import Tensor

from .separation import observed


def as_pictures(picture: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """(..., height, width) as one batch of levels from 0 to 1, with the lowest level and the span of each.

    Where `mask` is false the picture is not known, and 0 in the result.
    Raises ValueError where `picture` is no real picture of single or double precision, or empty, LinAlgError where
    it holds NaN or infinity.
    """
    if picture.ndim < 2 or picture.dtype not in (torch.float32, torch.float64) or 0 in picture.shape:
        raise ValueError(
            "picture must be real (..., height, width) of single or double precision, got "
            f"{picture.dtype} of shape {tuple(picture.shape)}"
        )
    known = observed("picture", picture, mask).reshape(-1, *picture.shape[-2:])
    pictures = picture.reshape(known.shape)
    low = torch.where(known, pictures, torch.inf).amin((1, 2), keepdim=True)
    high = torch.where(known, pictures, -torch.inf).amax((1, 2), keepdim=True)
    low, span = torch.where(high >= low, low, 0), torch.where(high > low, high - low, 1)
    return torch.where(known, (pictures - low) / span, 0), low, span


def positions(length: int, patch: int, step: int) -> list[int]:
    """Where patches begin along an axis: every `step` pixels, and one that ends with the axis.

    >>> positions(25, 10, 6)
    [0, 6, 12, 15]
    """
    return [*range(0, length - patch, step), length - patch]


def extract(picture: Tensor, patch: int, step: int) -> Tensor:
    """All patches of pictures, row by row: (batch, height, width) to (batch, count, patch, patch).

    Raises ValueError where the patches would leave pixels out.
    """
    if not 0 < step <= patch <= min(picture.shape[1:]):
        raise ValueError(f"step {step} and patch {patch} must be positive, step at most patch")
    rows = torch.tensor(positions(picture.shape[1], patch, step), device=picture.device)
    columns = torch.tensor(positions(picture.shape[2], patch, step), device=picture.device)
    inside = torch.arange(patch, device=picture.device)
    row, column = rows[:, None] + inside, columns[:, None] + inside
    patches = picture[:, row[:, None, :, None], column[None, :, None, :]]
    return patches.flatten(1, 2)


def assemble(
    patches: Tensor, shape: tuple[int, int], step: int, reduce: Callable[[Tensor], Tensor]
) -> Tensor:
    """The pictures that overlapping patches make: the inverse of `extract`, (batch, *shape).

    reduce: from all that patches say of a pixel, along the last dimension and NaN where fewer patches cover it
    than elsewhere, to one value: `nanmean` or `nanmedian` of this module.

    >>> picture = torch.rand(2, 23, 31)
    >>> torch.equal(assemble(extract(picture, 10, 4), (23, 31), 4, nanmedian), picture)
    True
    """
    patch = patches.shape[-1]
    rows, columns = (positions(length, patch, step) for length in shape)
    grid = patches.unflatten(1, (len(rows), len(columns)))
    (row_of, row_in), (column_of, column_in) = (
        _cover(length, patch, starts, patches.device)
        for length, starts in zip(shape, (rows, columns), strict=True)
    )
    values = grid[
        :,
        row_of.clamp_min(0)[:, None, :, None],
        column_of.clamp_min(0)[None, :, None, :],
        row_in[:, None, :, None],
        column_in[None, :, None, :],
    ]
    missing = (row_of < 0)[:, None, :, None] | (column_of < 0)[None, :, None, :]
    return reduce(values.masked_fill(missing, torch.nan).flatten(3))


def nanmean(values: Tensor) -> Tensor:
    return values.nanmean(-1)


def nanmedian(values: Tensor) -> Tensor:
    """The median along the last dimension; of an even number of values, the mean of the two in the middle."""
    return (values.nanmedian(-1).values - (-values).nanmedian(-1).values) / 2


def _cover(length: int, patch: int, starts: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Which patches cover each position of an axis (-1: none), and where in them it lies; (length, most)."""
    first = torch.tensor(starts, device=device)
    inside = torch.arange(length, device=device)[:, None] - first
    covers = (inside >= 0) & (inside < patch)
    most = int(covers.sum(1).max())
    order = covers.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    there = covers.gather(1, order)
    return torch.where(there, order, -1), torch.where(there, inside.gather(1, order), 0)
