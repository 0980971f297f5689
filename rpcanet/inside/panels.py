"""Pictures of a decomposition, side by side, for TensorBoard and for files."""

import torch
from kornia.color import ApplyColorMap, ColorMap
from kornia.geometry import resize
from torch import Tensor

from ..networks.unfolding import Decomposition

PARTS = ("input", "mask", "probability", "background", "object")


def panel(
    image: Tensor, decomposition: Decomposition, mask: Tensor | None = None, height: int = 192
) -> Tensor:
    """Rows of input, mask, probability, background and object; (3, rows x height, 5 x width) in [0, 1].

    image and mask are (batch, 1, height, width), one row for each; without a mask its column is left out. Input
    and background are shown in grey and the object's logits in the colour map viridis, each between its own
    levels at 0.5% and 99.5% (input, background) or its least and greatest (object); probability in viridis
    from 0 to 1.

    >>> from unfoldkit.rpcanet import RPCANet
    >>> image = torch.rand(2, 1, 32, 40)
    >>> with torch.no_grad():
    ...     panel(image, RPCANet(stages=1)(image), mask=image > 0.9, height=16).shape
    torch.Size([3, 32, 100])
    """
    return _side_by_side(
        height,
        _grey(_stretched(image, tail=0.005)),
        *([] if mask is None else [_grey(mask.float())]),
        _coloured(decomposition.object.sigmoid()),
        _grey(_stretched(decomposition.background, tail=0.005)),
        _coloured(_stretched(decomposition.object)),
    )


def backgrounds_panel(image: Tensor, background: Tensor, exact: Tensor, height: int = 192) -> Tensor:
    """Rows of input, background B_K and the background of `exact_parts`; (3, rows x height, 3 x width) in [0, 1].

    All are (batch, 1, height, width), and shown in grey between their own levels at 0.5% and 99.5%.
    """
    planes = (image, background, exact)
    return _side_by_side(height, *(_grey(_stretched(plane, tail=0.005)) for plane in planes))


def _side_by_side(height: int, *columns: Tensor) -> Tensor:
    rows = torch.cat([column.float() for column in columns], dim=3)
    rows = resize(rows, (height, round(height * rows.shape[3] / rows.shape[2])), interpolation="area")
    return torch.cat(list(rows), dim=1)


def _stretched(x: Tensor, tail: float = 0.0) -> Tensor:
    """Each picture from 0 at its lower quantile `tail` to 1 at its upper."""
    levels = x.float().flatten(1).quantile(torch.tensor([tail, 1 - tail], device=x.device), dim=1)
    low, high = levels[..., None, None, None]
    return ((x - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)


def _grey(x: Tensor) -> Tensor:
    return x.expand(-1, 3, -1, -1)


def _coloured(x: Tensor) -> Tensor:
    return ApplyColorMap(ColorMap("viridis", device=x.device))(x.float())
