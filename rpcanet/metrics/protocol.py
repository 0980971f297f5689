"""What the protocols share: counts over a data set, and the ratios made of them."""

from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from . import batched


class PixelProtocol(Metric):
    """Counts of a data set's pixels, from which the ratios are taken.

        iou = TP / (TP + FP + FN)      precision = TP / (TP + FP)      recall = TP / (TP + FN)
        f1 = 2 TP / (2 TP + FP + FN)   niou = mean over pictures of each picture's own iou

    all over the whole data set. A protocol says which pixels count as predicted (`binarise`); with `threshold`
    it is those of p > threshold instead. Nothing to find and nothing found counts as full agreement: iou, niou
    and f1 are then 1. A ratio over nothing is NaN: precision without a predicted pixel, recall without an object
    pixel.

    For the same predicted pixels, iou, f1, precision and recall are those of pysodmetrics over a data set
    (`sample_based=False`, beta 1) and niou its mean over pictures, but for that nothing: pysodmetrics says 0.

    `update(probability, mask)` takes two (batch, 1, height, width) tensors of probabilities from 0 to 1, and
    masks whose objects are what is above 0. Counts add up over batches and over processes.
    """

    full_state_update = False
    on_gpu = True  # whether batches on a GPU are counted there
    count: Tensor
    iou_sum: Tensor

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__()
        require_threshold(threshold)
        self.threshold = threshold
        # TP, FP, FN, pictures
        self.add_state("count", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("iou_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def binarise(self, probability: np.ndarray) -> np.ndarray:
        """The predicted pixels of one picture, a boolean (height, width)."""
        raise NotImplementedError

    def update(self, probability: Tensor, mask: Tensor) -> None:
        if probability.is_cuda and self.on_gpu:
            self.count_batch(*planes(probability, mask))
            return
        for p, m in pictures(probability, mask):
            predicted = self.binarise(p) if self.threshold is None else p > self.threshold
            self.count_picture(p, predicted, m)

    def count_picture(self, probability: np.ndarray, predicted: np.ndarray, mask: np.ndarray) -> None:
        tp, fp, fn = (int(x.sum()) for x in (predicted & mask, predicted & ~mask, ~predicted & mask))
        self.count += torch.tensor([tp, fp, fn, 1], device=self.count.device)
        self.iou_sum += ratio(tp, tp + fp + fn, of_nothing=1.0)

    def binarise_batch(self, probability: Tensor) -> Tensor:
        """`binarise` of (batch, height, width)."""
        raise NotImplementedError

    def count_batch(self, probability: Tensor, mask: Tensor) -> None:
        """What `update` does, of (batch, height, width) in torch, on whatever device they are."""
        predicted = (
            self.binarise_batch(probability) if self.threshold is None else probability > self.threshold
        )
        self.count_pictures(predicted, mask)

    def count_pictures(self, predicted: Tensor, mask: Tensor) -> None:
        counts = torch.stack(
            [batched.per_picture(x) for x in (predicted & mask, predicted & ~mask, ~predicted & mask)]
        )
        union = counts.sum(0)
        ious = torch.where(union > 0, counts[0].double() / union, 1.0)
        for iou in ious.unbind():  # in order, as pictures one by one add up
            self.iou_sum += iou
        self.count[:3] += counts.sum(1)
        self.count[3] += len(mask)

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

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__(threshold)
        self.add_state("target_count", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="sum")

    def match(self, predicted: np.ndarray, mask: np.ndarray) -> Targets:
        """The target-level counts of one picture from its predicted pixels and its mask."""
        raise NotImplementedError

    def count_picture(self, probability: np.ndarray, predicted: np.ndarray, mask: np.ndarray) -> None:
        super().count_picture(probability, predicted, mask)
        self.target_count += torch.tensor(self.match(predicted, mask), device=self.target_count.device)

    def match_batch(self, predicted: Tensor, mask: Tensor) -> Tensor:
        """The sums of `Targets` over pictures (batch, height, width)."""
        raise NotImplementedError

    def count_pictures(self, predicted: Tensor, mask: Tensor) -> None:
        super().count_pictures(predicted, mask)
        self.target_count += self.match_batch(predicted, mask).to(self.target_count.device)

    def compute(self) -> dict[str, Tensor]:
        found, targets, false_pixels, pixels = self.target_count.tolist()
        values = {"pd": ratio(found, targets), "fa": ratio(false_pixels, pixels)}
        return super().compute() | {k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()}


def pictures(probability: Tensor, mask: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pictures of a batch as (height, width) arrays: probability, float64 where it was, else float32, and
    mask as booleans. Raises what `require_pictures` raises.
    """
    p, m = planes(probability, mask)
    return list(zip(p.cpu().numpy(), m.cpu().numpy(), strict=True))


def planes(probability: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same as (batch, height, width) tensors where they are."""
    require_pictures(probability, mask)
    kept = probability.detach() if probability.dtype == torch.float64 else probability.detach().float()
    return kept[:, 0], mask.detach()[:, 0] > 0


def require_pictures(probability: Tensor, mask: Tensor) -> None:
    """ValueError where the shapes differ or are not (batch, 1, height, width), where these are empty or not real,
    where either holds NaN, or where a probability is outside 0 to 1.
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
    for name, tensor in (("probability", probability), ("mask", mask)):
        if tensor.isnan().any():
            raise ValueError(f"{name} holds NaN")
    low, high = (x.item() for x in (probability.min(), probability.max()))
    if low < 0 or high > 1:
        raise ValueError(
            f"probability must be from 0 to 1, found {low:g} to {high:g}; "
            "divide levels of 0 to 255 by 255, take the sigmoid of logits"
        )


def require_bins(bins: int) -> None:
    """ValueError unless there is a threshold."""
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")


def require_threshold(threshold: float | None) -> None:
    """ValueError unless a probability may be above it; None stands for a protocol's own rule."""
    if threshold is not None and not 0 <= threshold < 1:
        raise ValueError(f"threshold must be at least 0 and below 1, got {threshold}")


class Components(NamedTuple):
    """The 8-connected components of a boolean mask, in raster order of their first pixel.

    labels: (height, width), 1 to `number`, 0 outside.  areas: pixels.  centroids: (number, 2), column and row.
    """

    number: int
    labels: np.ndarray
    areas: np.ndarray
    centroids: np.ndarray


def components(mask: np.ndarray) -> Components:
    """>>> mask = np.array([[0, 0, 0, 1], [1, 0, 0, 0]], bool)
    >>> components(mask).centroids.tolist()
    [[3.0, 0.0], [0.0, 1.0]]
    """
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    first = np.zeros(count, np.int64)
    pixels = np.flatnonzero(mask)[::-1]
    first[labels.ravel()[pixels]] = pixels  # of repeated labels the last stays
    order = np.argsort(first[1:]) + 1  # OpenCV numbers them in an order of its own
    renumbered = np.zeros(count, labels.dtype)
    renumbered[order] = np.arange(1, count)
    return Components(count - 1, renumbered[labels], stats[order, cv2.CC_STAT_AREA], centroids[order])


def relative_to_peak(probability: np.ndarray) -> np.ndarray:
    """p / max(p), and 0 everywhere where p is."""
    peak = probability.max(initial=0)
    return probability / peak if peak > 0 else np.zeros_like(probability)


def ratio(part: float, whole: float, of_nothing: float = float("nan")) -> float:
    return part / whole if whole else of_nothing
