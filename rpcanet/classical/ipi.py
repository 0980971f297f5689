"""The infrared patch-image model: small targets as the sparse part of all overlapping patches."""

import torch
from torch import Tensor

from .patches import as_pictures, assemble, extract, nanmedian
from .robust_pca import pcp
from .separation import Separation


def ipi(
    picture: Tensor,
    patch: int = 50,
    step: int = 10,
    lambda_: float | None = None,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
    *,
    mask: Tensor | None = None,
) -> Separation:
    """Infrared patch-image model (IPI) for bright small targets.

        min |B|_* + lambda |T|_1   such that   B + T = D

    where every column of D is a patch of the picture, whose levels are brought to 0..1. A pixel of the picture is
    the median of what its patches say.

    Args:
        picture: (..., height, width), float32 or float64, in any levels.
        patch: side of a patch in pixels; at most the picture's shorter side is taken.
        step: pixels from one patch to the next.
        lambda_: weight of the targets; 1 / sqrt(max(height, width)) by default.
        tolerance: a picture is done when |D - B - T|_F <= tolerance |D|_F.
        max_iterations: each takes one singular value thresholding of D.
        mask: booleans that broadcast to picture, true where it is known; elsewhere it may be anything, NaN too.

    Returns:
        The `Separation` in the picture's levels; the object holds what is brighter than the background,
        max(T, 0), and is 0 where the picture is not known; the background completes it there. The patch size,
        step and lambda are those of the authors' program; they solve with an accelerated proximal gradient whose
        penalty mu decreases, here `pcp` solves the limit mu -> 0.

    Raises:
        ValueError: a shape, a dtype or a number that is not positive.
        torch.linalg.LinAlgError: `picture` holds NaN or infinity where it is known.

    Source: Gao et al., "Infrared patch-image model for small target detection in a single image", TIP 2013.

    Example:
        >>> picture = torch.linspace(0, 100, 64).expand(64, 64).clone()
        >>> picture[30:33, 20:23] += 80
        >>> bool(ipi(picture, patch=20).probability[31, 21] > 0.5)
        True
    """
    pictures, low, span = as_pictures(picture, mask)
    height, width = pictures.shape[1:]
    side = min(patch, height, width)
    stride = min(step, side)
    known = torch.ones_like(pictures, dtype=torch.bool) if mask is None else mask.expand(picture.shape)
    known = known.reshape(pictures.shape)
    D, inside = (extract(x, side, stride).flatten(2).mT for x in (pictures, known))
    weight = max(height, width) ** -0.5 if lambda_ is None else lambda_
    found = pcp(D, weight, tolerance, max_iterations, mask=None if mask is None else inside)
    background, object_ = (
        assemble(part.mT.unflatten(2, (side, side)), (height, width), stride, nanmedian)
        for part in (found.background, found.object)
    )
    batch = picture.shape[:-2]
    return Separation(
        (background * span + low).reshape(picture.shape),
        torch.where(known, object_ * span, 0).clamp_min(0).reshape(picture.shape),
        found.iterations.reshape(batch),
        found.residual.reshape(batch),
    )
