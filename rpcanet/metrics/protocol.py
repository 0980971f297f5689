"""What the protocols share: counts over a data set, and the ratios made of them."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric


class PixelProtocol(Metric):
    """Counts of a data set's pixels, from which the ratios are taken.

        iou = TP / (TP + FP + FN)      precision = TP / (TP + FP)      recall = TP / (TP + FN)
        f1 = 2 TP / (2 TP + FP + FN)   niou = mean over pictures of each picture's own iou

    all over the whole data set. A protocol says which pixels count as predicted (`binarise`). Nothing to find
    and nothing found counts as full agreement: iou, niou and f1 are then 1. A ratio over nothing is NaN:
    precision without a predicted pixel, recall without an object pixel.

    `update(probability, mask)` takes two (batch, 1, height, width) tensors; the mask's objects are what is
    above 0. Counts add up over batches and over processes.
    """

    full_state_update = False
    count: Tensor
    iou_sum: Tensor

    def __init__(self) -> None:
        super().__init__()
        # TP, FP, FN, pictures
        self.add_state("count", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("iou_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def binarise(self, probability: np.ndarray) -> np.ndarray:
        """The predicted pixels of one picture, a boolean (height, width)."""
        raise NotImplementedError

    def update(self, probability: Tensor, mask: Tensor) -> None:
        for p, m in pictures(probability, mask):
            self.count_picture(p, self.binarise(p), m)

    def count_picture(self, probability: np.ndarray, predicted: np.ndarray, mask: np.ndarray) -> None:
        tp, fp, fn = (int(x.sum()) for x in (predicted & mask, predicted & ~mask, ~predicted & mask))
        self.count += torch.tensor([tp, fp, fn, 1], device=self.count.device)
        self.iou_sum += ratio(tp, tp + fp + fn, of_nothing=1.0)

    def compute(self) -> dict[str, Tensor]:
        tp, fp, fn, images = self.count.tolist()
        values = {
            "iou": ratio(tp, tp + fp + fn, of_nothing=1.0),
            "niou": ratio(float(self.iou_sum), images),
            "f1": ratio(2 * tp, 2 * tp + fp + fn, of_nothing=1.0),
            "precision": ratio(tp, tp + fp),
            "recall": ratio(tp, tp + fn),
        }
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


class Targets(NamedTuple):
    """Target-level counts of one picture."""

    found: int
    targets: int
    false_pixels: int
    pixels: int


class TargetProtocol(PixelProtocol):
    """The ratios of `PixelProtocol`, and those of small targets:

        pd = found targets / targets   fa = false pixels / pixels

    over the whole data set. A protocol says which targets count as found (`match`). pd without a target and fa
    without a picture to count on are NaN.
    """

    target_count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("target_count", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="sum")

    def match(self, predicted: np.ndarray, mask: np.ndarray) -> Targets:
        """The target-level counts of one picture from its predicted pixels and its mask."""
        raise NotImplementedError

    def count_picture(self, probability: np.ndarray, predicted: np.ndarray, mask: np.ndarray) -> None:
        super().count_picture(probability, predicted, mask)
        self.target_count += torch.tensor(self.match(predicted, mask), device=self.target_count.device)

    def compute(self) -> dict[str, Tensor]:
        found, targets, false_pixels, pixels = self.target_count.tolist()
        values = {"pd": ratio(found, targets), "fa": ratio(false_pixels, pixels)}
        return super().compute() | {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}


def pictures(probability: Tensor, mask: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pictures of a batch as (height, width) arrays: probability, and mask as booleans.

    Raises what `require_pictures` raises.
    """
    require_pictures(probability, mask)
    p, m = probability.detach().float().cpu().numpy(), (mask.detach() > 0).cpu().numpy()
    return list(zip(p[:, 0], m[:, 0], strict=True))


def require_pictures(probability: Tensor, mask: Tensor) -> None:
    """ValueError where the shapes differ or are not (batch, 1, height, width), where these are empty or not real,
    or where a probability is NaN.
    """
    if probability.shape != mask.shape or probability.ndim != 4 or probability.shape[1] != 1:
        raise ValueError(
            "probability and mask must both be (batch, 1, height, width), "
            f"got {tuple(probability.shape)} and {tuple(mask.shape)}"
        )
    if probability.numel() == 0 or probability.is_complex() or mask.is_complex():
        raise ValueError(
            f"probability and mask must be real and not empty, got {probability.dtype}, {mask.dtype} "
            f"of shape {tuple(probability.shape)}"
        )
    if probability.isnan().any():
        raise ValueError("probability holds NaN")


def require_bins(bins: int) -> None:
    """ValueError unless there is a threshold."""
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")


def components(mask: np.ndarray) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """The 8-connected components of a boolean mask.

    Returns their number, a label of 1 to that number for each pixel (0 outside), their areas and their
    centroids (column, row).
    """
    number, labels, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return number - 1, labels, stats[1:, cv2.CC_STAT_AREA], centroids[1:]


def relative_to_peak(probability: np.ndarray) -> np.ndarray:
    """p / max(p), and 0 everywhere where p is."""
    peak = probability.max(initial=0)
    return probability / peak if peak > 0 else np.zeros_like(probability)


def ratio(part: float, whole: float, of_nothing: float = float("nan")) -> float:
    return part / whole if whole else of_nothing
