"""Precision, recall and false positive rate of pixels, threshold by threshold."""

import torch
from torch import Tensor
from torchmetrics import Metric

from .protocol import require_bins, require_pictures


class PixelCurves(Metric):
    """Counts of pixels predicted at each threshold t = 0, 1/bins, ..., 1 - 1/bins, over a whole data set.

    A pixel is predicted when its probability is at least t. `update` takes what `PixelProtocol.update` takes and
    `compute` gives (bins,) each of

        tp, fp, tn, fn       pixels
        precision            TP / (TP + FP), 1 where nothing is predicted
        recall               TP / (TP + FN), NaN without an object pixel
        false_positive_rate  FP / (FP + TN), NaN without a background pixel

    The memory it takes does not depend on the number of pictures.

    >>> curves = PixelCurves(bins=2)
    >>> curves.update(torch.tensor([[[[0.2, 0.4, 0.7, 0.9]]]]), torch.tensor([[[[0.0, 1.0, 0.0, 1.0]]]]))
    >>> rates = curves.compute()
    >>> rates["precision"], rates["recall"], rates["false_positive_rate"]
    (tensor([0.5000, 0.5000]), tensor([1.0000, 0.5000]), tensor([1.0000, 0.5000]))
    """

    full_state_update = False
    histogram: Tensor

    def __init__(self, bins: int = 200) -> None:
        super().__init__()
        require_bins(bins)
        self.bins = bins
        self.add_state("histogram", torch.zeros(2 * bins, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probability: Tensor, mask: Tensor) -> None:
        require_pictures(probability, mask)
        level = (probability.float() * self.bins).long().clamp(0, self.bins - 1)
        self.histogram += torch.bincount((level + self.bins * (mask > 0)).flatten(), minlength=2 * self.bins)

    def compute(self) -> dict[str, Tensor]:
        at_least = self.histogram.view(2, -1).flip(1).cumsum(1).flip(1)
        fp, tp = at_least
        tn, fn = (at_least[:, :1] - at_least).unbind()
        return {
            "tp": tp,
            "fp": fp,
            "tn": tn,
            "fn": fn,
            "precision": torch.where(tp + fp > 0, tp / (tp + fp), 1.0),
            "recall": tp / (tp + fn),
            "false_positive_rate": fp / (fp + tn),
        }
