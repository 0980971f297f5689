"""A decomposition that adds up: background and object whose sum is the picture."""

import torch
import torch.nn.functional as F
from torch import Tensor


def exact_parts(image: Tensor, objects: Tensor, margin: int = 2) -> tuple[Tensor, Tensor]:
    """Background B and object O of a picture D with B + O = D, of the pixels in which objects were found.

        B = D outside M, filled from there inside M;   O = D - B, which is 0 outside M

    where M are the objects and `margin` pixels around them, into which optics and resizing spread their levels.

    A network's own B_K leaves holes where objects are, and does not add up to D with O_K, which is read as logits.
    These parts keep its objects, so that their scores stay. M is filled by pull and push: bilinearly from the
    means of the known pixels of each 2x2 block, which are filled in the same way.

    Shapes: image (batch, 1, height, width), floating point; objects likewise, boolean, such as
    `decomposition.object > 0`. Where M is the whole picture B is 0.

    Raises ValueError for another shape or dtype and a negative margin.

    Source: Gortler et al., "The Lumigraph", SIGGRAPH 1996, section 3.4, of pull and push.

    >>> image = torch.full((1, 1, 8, 8), 0.25)
    >>> image[..., 3:5, 3:5] = 0.75
    >>> background, object_ = exact_parts(image, image > 0.5, margin=1)
    >>> bool((background == 0.25).all()), object_.sum().item()
    (True, 2.0)
    """
    if image.ndim != 4 or image.shape[1] != 1 or 0 in image.shape[2:] or not image.is_floating_point():
        raise ValueError(
            f"image must be floating point, (batch, 1, height, width), got {image.dtype}, {tuple(image.shape)}"
        )
    if objects.shape != image.shape or objects.dtype != torch.bool:
        raise ValueError(
            f"objects must be boolean of image's shape {tuple(image.shape)}, got {objects.dtype}"
        )
    if margin < 0:
        raise ValueError(f"margin must not be negative, got {margin}")
    around = F.max_pool2d(objects.to(image.dtype), 2 * margin + 1, 1, margin) > 0
    background = _filled(image, ~around)
    return background, image - background


def _filled(plane: Tensor, known: Tensor) -> Tensor:
    if bool(known.all()) or plane.shape[-1] * plane.shape[-2] == 1:
        return torch.where(known, plane, 0)
    share = F.avg_pool2d(known.to(plane.dtype), 2, ceil_mode=True)
    mean = F.avg_pool2d(torch.where(known, plane, 0), 2, ceil_mode=True) / share.clamp_min(1e-9)
    coarse = _filled(mean, share > 0)
    return torch.where(
        known, plane, F.interpolate(coarse, plane.shape[-2:], mode="bilinear", align_corners=False)
    )
