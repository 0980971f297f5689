"""Background and foreground of a frame stack: every frame is a column of one matrix."""

from collections.abc import Callable

from torch import Tensor

from .robust_pca import pcp
from .separation import Separation


def background_foreground(frames: Tensor, method: Callable[[Tensor], Separation] = pcp) -> Separation:
    """Split a video into what stays and what moves.

    The frames (frames, height, width) are the columns of D, (height x width, frames): what stays is of low rank,
    what moves is sparse. method: `pcp`, `pssv` or `wnnm` of this package.

    Returns the `Separation` with background and object of the frames' shape.
    Raises ValueError for frames of another shape.

    Source: Candes et al., "Robust principal component analysis?", 2011, section 4.2.

    >>> import torch
    >>> frames = torch.linspace(0, 1, 20).expand(10, 20, 20).clone()
    >>> for k in range(10):
    ...     frames[k, 5:8, k : k + 3] += 0.5
    >>> found = background_foreground(frames)
    >>> bool((found.object > 0.25).float().mean() == 9 / 400)
    True
    """
    if frames.ndim != 3:
        raise ValueError(f"frames must be (frames, height, width), got shape {tuple(frames.shape)}")
    count, height, width = frames.shape
    found = method(frames.flatten(1).mT)
    background, object_ = (part.mT.reshape(count, height, width) for part in (found.background, found.object))
    return Separation(background, object_, found.iterations, found.residual)
