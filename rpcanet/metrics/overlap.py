"""The papers' protocol for small targets, "overlap": a target is found when any predicted pixel touches it."""

import numpy as np
import torch
from torch import Tensor

from . import batched
from .protocol import TargetProtocol, Targets, components, relative_to_peak


class OverlapProtocol(TargetProtocol):
    """iou, niou, f1, precision, recall, pd, fa as the RPCANet papers count them.

    A pixel is predicted when p / max(p) > 0.5 within its picture. pd is the share of the mask's 8-connected
    components that any predicted pixel touches; fa = predicted pixels outside the mask / pixels outside it.
    Pictures with an empty mask are left out of pd and fa.

    Source: evaluation of Wu et al., "RPCANet", WACV 2024, section 4.1.

    >>> import torch
    >>> protocol = OverlapProtocol()
    >>> mask = torch.zeros(1, 1, 8, 8)
    >>> mask[..., 2:4, 2:4] = 1
    >>> protocol.update(0.9 * mask, mask)
    >>> {name: value.item() for name, value in protocol.compute().items() if name in ("iou", "pd", "fa")}
    {'iou': 1.0, 'pd': 1.0, 'fa': 0.0}
    """

    def binarise(self, probability: np.ndarray) -> np.ndarray:
        return relative_to_peak(probability) > 0.5

    def match(self, predicted: np.ndarray, mask: np.ndarray) -> Targets:
        targets, labels, _, _ = components(mask)
        if targets == 0:
            return Targets(0, 0, 0, 0)
        touched = np.unique(labels[predicted & mask])
        return Targets(len(touched), targets, int((predicted & ~mask).sum()), int((~mask).sum()))

    def binarise_batch(self, probability: Tensor) -> Tensor:
        return batched.relative_to_peak(probability) > 0.5

    def match_batch(self, predicted: Tensor, mask: Tensor) -> Tensor:
        labels = batched.labels_of(mask)
        roots = batched.roots_of(labels, mask)
        found = batched.touched(roots, labels, predicted & mask).sum()
        targets = batched.per_picture(roots)
        false, background = (batched.per_picture(x) for x in (predicted & ~mask, ~mask))
        holds = targets > 0
        return torch.stack((found, targets.sum(), (false * holds).sum(), (background * holds).sum()))
