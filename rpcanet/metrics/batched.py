"""What the protocols count, for a whole batch at once in torch, so that nothing leaves a GPU but the counts.

Components are named by the place of their first pixel: `labels` (N, H, W) hold, for each pixel of a component,
the index of that pixel in the flattened batch, and elsewhere their own. All counts equal those of single pictures.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROUNDS = 4  # of propagation between two looks at whether it has ended


def labels_of(mask: Tensor) -> Tensor:
    """The 8-connected components of masks (N, H, W) by their first pixels.

    Each round a component's representatives take the least label that its pixels meet, then all pixels that of
    their representative's representative; the number of rounds grows with the logarithm of a component's length.

    Source: Zhang, Azad and Hu, "FastSV: a distributed-memory connected component algorithm", 2020.

    >>> labels_of(torch.tensor([[[0, 0, 1], [1, 0, 0], [0, 1, 0]]]) > 0)[0]
    tensor([[0, 1, 2],
            [3, 4, 5],
            [6, 3, 8]])
    """
    index = torch.arange(mask.numel(), device=mask.device)
    labels, inside = index, mask.flatten()
    while True:
        before = labels
        for _ in range(ROUNDS):
            least = torch.where(inside, _least_around(labels.view(mask.shape), mask).flatten(), index)
            parents = labels.scatter_reduce(0, labels, least, "amin")
            parents = parents[parents]
            labels = parents[labels]
        if torch.equal(labels, before):
            return labels.view(mask.shape)


def _least_around(labels: Tensor, mask: Tensor) -> Tensor:
    """The least label of the 3x3 neighbours inside the mask."""
    outside = labels.numel()
    found = torch.where(mask, labels, outside)
    for axis in (1, 2):
        pad = (1, 1) if axis == 2 else (0, 0, 1, 1)
        wide, length = F.pad(found, pad, value=outside), mask.shape[axis]
        found = torch.stack([wide.narrow(axis, start, length) for start in range(3)]).amin(0)
    return found


def roots_of(labels: Tensor, mask: Tensor) -> Tensor:
    """Where components have their first pixels, (N, H, W)."""
    return mask & (labels.flatten() == torch.arange(labels.numel(), device=labels.device)).view(labels.shape)


def touched(roots: Tensor, labels: Tensor, where: Tensor) -> Tensor:
    """Those of the roots in whose components some pixel is `where`, (N, H, W)."""
    marks = torch.zeros(labels.numel(), dtype=torch.uint8, device=labels.device)
    marks = marks.scatter_reduce(0, labels.flatten(), where.flatten().to(torch.uint8), "amax")
    return roots & (marks.view(labels.shape) > 0)


def peaks(labels: Tensor, values: Tensor) -> Tensor:
    """At each root the largest value in its component, (N, H, W)."""
    found = values.new_zeros(values.numel())
    return found.scatter_reduce(0, labels.flatten(), values.flatten(), "amax").view(labels.shape)


def per_picture(where: Tensor) -> Tensor:
    """Number of pixels of each picture, (N,)."""
    return where.flatten(1).sum(1)


def relative_to_peak(probability: Tensor) -> Tensor:
    """p / max(p) of each picture (N, H, W), and 0 everywhere where p is."""
    peak = probability.amax((1, 2), keepdim=True)
    return torch.where(peak > 0, probability / peak, 0)


def at_least(values: Tensor, counted: Tensor, bins: int) -> Tensor:
    """How many of the values that are `counted` reach each of the thresholds 0, 1 / bins, ..., 1."""
    ordered = torch.where(counted, values, -1).flatten().sort().values
    return len(ordered) - torch.searchsorted(ordered, _thresholds(bins, values.dtype, values.device))


@lru_cache(maxsize=8)
def _thresholds(bins: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.from_numpy(np.arange(bins + 1) / bins).to(device, dtype)


def centroids(mask: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each mask of (N, H, W) the components' areas (n,) and centroids (n, 2), column and row, on the host."""
    labels = labels_of(mask)
    flat, sizes = labels.flatten(), mask.shape[1:]
    rows, columns = torch.meshgrid(*(torch.arange(n, device=mask.device) for n in sizes), indexing="ij")
    weights = [(weight * mask).flatten() for weight in (torch.ones_like(rows), columns, rows)]
    sums = [torch.zeros_like(flat).scatter_add(0, flat, weight) for weight in weights]
    roots = roots_of(labels, mask).flatten().nonzero()[:, 0]
    found = torch.stack([roots, *(total[roots] for total in sums)]).cpu().numpy()
    picture = found[0] // mask[0].numel()
    split = [found[1:, picture == number] for number in range(len(mask))]
    return [(area, np.stack((x, y), 1) / area[:, None]) for area, x, y in split]


def auc(probability: Tensor, mask: Tensor) -> Tensor:
    """Exact area under the ROC curve of one picture's pixels, (n,) each; NaN where a class is missing.

    The rank sum of the positives (Mann-Whitney), ties at their mean rank.
    """
    ordered, positives = probability.sort().values, mask.sum().double()
    below, up_to = (torch.searchsorted(ordered, probability, right=right) for right in (False, True))
    ranks = ((below + up_to + 1) * mask).sum().double() / 2
    wins = ranks - positives * (positives + 1) / 2
    return wins / (positives * (len(mask) - positives))
