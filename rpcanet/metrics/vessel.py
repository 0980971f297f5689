"""The papers' protocol for retinal vessels, "vessel": every pixel of each picture, then the mean over pictures."""

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor
from torchmetrics import Metric

from . import batched
from .protocol import pictures, planes, ratio, require_threshold

NAMES = ("accuracy", "sensitivity", "specificity", "precision", "f1", "iou", "auc")


class VesselProtocol(Metric):
    """accuracy, sensitivity, specificity, precision, f1, iou and auc, each the mean over pictures.

        accuracy = (TP + TN) / pixels   sensitivity = TP / (TP + FN)   specificity = TN / (TN + FP)
        precision = TP / (TP + FP)      f1 = 2 TP / (2 TP + FP + FN)   iou = TP / (TP + FP + FN)
        auc = P(p at a vessel pixel > p at another) + P(both equal) / 2

    within a picture; a pixel is predicted when p > threshold, 0.5 unless given. auc is the exact area under the
    ROC curve of all the thresholds there are. A picture for which a ratio is over nothing is left out of that
    ratio's mean; nothing to find and nothing found counts as f1 = iou = 1.

    `update(probability, mask, region=None)` takes what `PixelProtocol.update` takes; with `region`, of the same
    shape, only pixels where it is above 0 count, such as a camera's field of view. The papers count the whole
    picture. Raises ValueError where the region has another shape or is empty in a picture.

    Source: evaluation of Wu et al., "RPCANet++", 2025 (whose column "Spe" is in fact precision).

    >>> protocol = VesselProtocol()
    >>> protocol.update(torch.tensor([[[[0.9, 0.2, 0.6]]]]), torch.tensor([[[[1, 0, 0]]]]))
    >>> [round(value.item(), 3) for value in protocol.compute().values()]
    [0.667, 1.0, 0.5, 0.5, 0.667, 0.5, 1.0]
    """

    full_state_update = False
    total: Tensor
    defined: Tensor

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__()
        require_threshold(threshold)
        self.threshold = 0.5 if threshold is None else threshold
        self.add_state("total", torch.zeros(len(NAMES), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("defined", torch.zeros(len(NAMES), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probability: Tensor, mask: Tensor, region: Tensor | None = None) -> None:
        if probability.is_cuda:
            inside(region, mask)
            counted = torch.ones_like(mask, dtype=torch.bool) if region is None else region > 0
            self.count_batch(*planes(probability, mask), counted[:, 0].to(probability.device))
            return
        for (p, m), r in zip(pictures(probability, mask), inside(region, mask), strict=True):
            numbers = _of_picture(p[r], m[r], self.threshold)
            values = torch.tensor(numbers, dtype=torch.float64, device=self.total.device)
            self.total += values.nan_to_num(0.0)
            self.defined += ~values.isnan()

    def count_batch(self, probability: Tensor, mask: Tensor, region: Tensor) -> None:
        """What `update` does, of (batch, height, width) in torch, on whatever device they are."""
        for p, m, r in zip(probability, mask, region, strict=True):
            p, m = p[r], m[r]
            predicted = p > self.threshold
            counts = torch.stack(
                [x.sum() for x in (predicted & m, predicted & ~m, ~predicted & m, ~predicted & ~m)]
            )
            area = batched.auc(p, m).item()
            values = torch.tensor([*_ratios(*counts.tolist()), area], dtype=torch.float64)
            self.total += values.nan_to_num(0.0).to(self.total.device)
            self.defined += (~values.isnan()).to(self.defined.device)

    def compute(self) -> dict[str, Tensor]:
        return dict(zip(NAMES, self.total / self.defined, strict=True))


def inside(region: Tensor | None, mask: Tensor) -> np.ndarray:
    """Which pixels of each picture count, (batch, height, width); all without a region."""
    if region is None:
        return np.ones((mask.shape[0], *mask.shape[-2:]), bool)
    if region.shape != mask.shape:
        raise ValueError(f"region {tuple(region.shape)} and mask {tuple(mask.shape)} differ in shape")
    counted = (region > 0)[:, 0].cpu().numpy()
    if not counted.any(axis=(1, 2)).all():
        raise ValueError("region is empty in a picture; expected pixels above 0 where to count")
    return counted


def _of_picture(probability: np.ndarray, mask: np.ndarray, threshold: float) -> list[float]:
    """The numbers of one picture in the order of NAMES; NaN where one is over nothing."""
    predicted = probability > threshold
    counts = (predicted & mask, predicted & ~mask, ~predicted & mask, ~predicted & ~mask)
    return [*_ratios(*(int(x.sum()) for x in counts)), roc_auc(probability, mask)]


def _ratios(tp: int, fp: int, fn: int, tn: int) -> list[float]:
    return [
        ratio(tp + tn, tp + fp + fn + tn),
        ratio(tp, tp + fn),
        ratio(tn, tn + fp),
        ratio(tp, tp + fp),
        ratio(2 * tp, 2 * tp + fp + fn, of_nothing=1.0),
        ratio(tp, tp + fp + fn, of_nothing=1.0),
    ]


def roc_auc(probability: np.ndarray, mask: np.ndarray) -> float:
    """Exact area under the ROC curve by the ranks of the positives (Mann-Whitney); NaN where a class is missing.

    >>> roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    positives = int(mask.sum())
    ranks = rankdata(probability, axis=None)[mask.ravel()]
    wins = float(ranks.sum()) - positives * (positives + 1) / 2
    return ratio(wins, positives * (mask.size - positives))
