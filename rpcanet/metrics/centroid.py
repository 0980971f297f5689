"""The community's protocol for small targets, "centroid": a target is found when a centroid comes near."""

import numpy as np
import torch
from torch import Tensor

from . import batched
from .protocol import TargetProtocol, Targets, components

REACH = 3.0  # pixels


class CentroidProtocol(TargetProtocol):
    """iou, niou, f1, precision, recall, pd, fa as DNANet and BasicIRSTD count them.

    A pixel is predicted when p > 0.5. A mask component is found when the centroid of a predicted component
    lies less than 3 pixels from its own: greedily, targets and predicted components each in raster order of
    their first pixel, a predicted component serving one target.
    fa = pixels of the predicted components that serve none / all pixels. Every picture counts, also one with an
    empty mask.

    Source: Li et al., "Dense Nested Attention Network for Infrared Small Target Detection", IEEE TIP 2023.

    >>> import torch
    >>> protocol = CentroidProtocol()
    >>> mask = torch.zeros(1, 1, 8, 8)
    >>> mask[..., 2:4, 2:4] = 1
    >>> protocol.update(0.9 * mask, mask)
    >>> protocol.compute()["pd"].item()
    1.0
    """

    def binarise(self, probability: np.ndarray) -> np.ndarray:
        return probability > 0.5

    def match(self, predicted: np.ndarray, mask: np.ndarray) -> Targets:
        targets_at, found = components(mask).centroids, components(predicted)
        return _paired(targets_at, found.centroids, found.areas, mask.size)

    def binarise_batch(self, probability: Tensor) -> Tensor:
        return probability > 0.5

    def match_batch(self, predicted: Tensor, mask: Tensor) -> Tensor:
        pairs = zip(batched.centroids(mask), batched.centroids(predicted), strict=True)
        counts = [_paired(targets_at, at, areas, mask[0].numel()) for (_, targets_at), (areas, at) in pairs]
        return torch.tensor(counts).sum(0)


def _paired(targets_at: np.ndarray, predicted_at: np.ndarray, areas: np.ndarray, pixels: int) -> Targets:
    """Targets and predicted components, at centroids (n, 2) each, paired in their order."""
    number = len(areas)
    free = set(range(number))
    for target_at in targets_at:
        near = (k for k in sorted(free) if np.linalg.norm(predicted_at[k] - target_at) < REACH)
        free -= {next(near, -1)}
    return Targets(number - len(free), len(targets_at), int(areas[list(free)].sum()), pixels)
