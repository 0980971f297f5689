"""Pictures of a batch at random scales, contrasts and brightnesses."""

import torch
import torch.nn.functional as F
from torch import Tensor

FACTOR = 1.5  # of scale and contrast, up and down
SHIFT = 0.5  # of brightness, in standard deviations of the picture


def varied(image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each picture and its mask magnified about a random place by a factor s, its levels v then as

        v' = m + c (v - m) + b std,   m, std: mean and standard deviation of the magnified picture,

    s and c from 1 / FACTOR to FACTOR, uniform in their logarithm, b from -SHIFT to SHIFT. Both are interpolated
    bilinearly, so that a mask holds shares at its edges, and go on as in a mirror beyond the picture.

    Shapes: image and mask are (batch, 1, height, width), floating point. The numbers are drawn by `generator`, on
    the CPU, and depend on it and the size of the batch alone.

    >>> image, mask = torch.rand(2, 1, 16, 20), torch.ones(2, 1, 16, 20)
    >>> other, same = varied(image, mask, torch.Generator().manual_seed(0))
    >>> other.shape == image.shape, bool((same - mask).abs().max() < 1e-5)
    (True, True)
    """
    draws = (2 * torch.rand(5, len(image), generator=generator) - 1).to(image)
    scale, contrast = FACTOR ** draws[:2]
    brightness, (across, down) = SHIFT * draws[2], draws[3:] * (1 - 1 / scale)
    zero = torch.zeros_like(scale)
    places = torch.stack((1 / scale, zero, across, zero, 1 / scale, down), 1).view(-1, 2, 3)
    grid = F.affine_grid(places, list(image.shape), align_corners=False)
    image, mask = (
        F.grid_sample(plane, grid, padding_mode="reflection", align_corners=False) for plane in (image, mask)
    )
    std, mean = torch.std_mean(image, (1, 2, 3), keepdim=True)
    contrast, brightness = (number[:, None, None, None] for number in (contrast, brightness))
    return mean + contrast * (image - mean) + brightness * std, mask
