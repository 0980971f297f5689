"""The community's protocol for small targets, "centroid": a target is found when a centroid comes near."""

import numpy as np

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
        targets, _, _, targets_at = components(mask)
        number, _, areas, predicted_at = components(predicted)
        free = set(range(number))
        for target_at in targets_at:
            near = (k for k in sorted(free) if np.linalg.norm(predicted_at[k] - target_at) < REACH)
            free -= {next(near, -1)}
        return Targets(number - len(free), targets, int(areas[list(free)].sum()), mask.size)
