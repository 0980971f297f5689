"""ROC over targets: how many are found against how many background pixels are raised, threshold by threshold."""

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from . import batched
from .protocol import components, pictures, planes, relative_to_peak, require_bins


class TargetROC(Metric):
    """ROC curve in the "overlap" sense and the area under it.

    A pixel is predicted at threshold t when p / max(p) >= t; for each of 200 + 1 thresholds from 0 to 1

        roc_pd = mask components touched by a predicted pixel / mask components
        roc_fa = predicted pixels outside the mask / pixels outside the mask
        auc    = area under roc_pd over roc_fa, by trapezoids

    Pictures with an empty mask are left out; without any target the values are NaN. `update` takes what
    `PixelProtocol.update` takes.

    Source: evaluation of Wu et al., "RPCANet", WACV 2024, section 4.1.

    >>> roc = TargetROC()
    >>> mask = torch.zeros(1, 1, 8, 8)
    >>> mask[..., 2:4, 2:4] = 1
    >>> roc.update(0.9 * mask, mask)
    >>> roc.compute()["auc"].item()
    1.0
    """

    full_state_update = False
    found: Tensor
    false_pixels: Tensor
    whole: Tensor

    def __init__(self, bins: int = 200) -> None:
        super().__init__()
        require_bins(bins)
        self.bins = bins
        for name in ("found", "false_pixels"):
            self.add_state(name, torch.zeros(bins + 1, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("whole", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")  # targets, pixels

    def update(self, probability: Tensor, mask: Tensor) -> None:
        if probability.is_cuda:
            self.count_batch(*planes(probability, mask))
            return
        for p, m in pictures(probability, mask):
            targets, labels, _, _ = components(m)
            if targets == 0:
                continue
            p = relative_to_peak(p)
            peaks = np.zeros(targets + 1, p.dtype)
            np.maximum.at(peaks, labels.ravel(), p.ravel())
            self.found += self._at_least(peaks[1:])
            self.false_pixels += self._at_least(p[~m])
            self.whole += torch.tensor([targets, int((~m).sum())], device=self.whole.device)

    def count_batch(self, probability: Tensor, mask: Tensor) -> None:
        """What `update` does, of (batch, height, width) in torch, on whatever device they are."""
        labels, p = batched.labels_of(mask), batched.relative_to_peak(probability)
        roots = batched.roots_of(labels, mask)
        targets = batched.per_picture(roots)
        background = ~mask & (targets > 0)[:, None, None]
        self.found += batched.at_least(batched.peaks(labels, p), roots, self.bins)
        self.false_pixels += batched.at_least(p, background, self.bins)
        self.whole += torch.stack((targets.sum(), background.sum()))

    def _at_least(self, values: np.ndarray) -> Tensor:
        """How many of `values` reach each threshold."""
        thresholds = (np.arange(self.bins + 1) / self.bins).astype(values.dtype)
        below = np.searchsorted(np.sort(values), thresholds, side="left")
        return torch.from_numpy(len(values) - below).to(self.found.device)

    def compute(self) -> dict[str, Tensor]:
        targets, pixels = self.whole.double()
        pd, fa = self.found / targets, self.false_pixels / pixels
        return {"auc": torch.trapezoid(pd.flip(0), fa.flip(0)), "roc_pd": pd, "roc_fa": fa}
