"""The papers' protocol for surface defects, "defect": how well the shape of the map fits the mask."""

import numpy as np
import torch
from py_sod_metrics import MAE, Smeasure
from torch import Tensor

from .protocol import PixelProtocol, ratio, relative_to_peak


class _Structure(Smeasure):
    """The S-measure, with 0 for the similarity of a quadrant that has no pixels (its weight is 0 too)."""

    def ssim(self, pred: np.ndarray, gt: np.ndarray) -> float:
        return super().ssim(pred, gt) if pred.size else 0.0


class DefectProtocol(PixelProtocol):
    """smeasure and mae of the probability map; iou, niou, f1, precision and recall as in "overlap".

        mae = mean |p - m|
        smeasure = (object similarity + region similarity) / 2

    of each picture over its pixels (m the mask of 0 and 1), then the mean over pictures. For iou and its
    relatives a pixel is predicted when p / max(p) > 0.5 within its picture.

    smeasure and mae are those of pysodmetrics with `normalize=False`; by default it rescales every map to 0..1
    and takes a mask above 128 for object, which the papers do not. Where an object's centroid lies in the last
    row or column, pysodmetrics divides nothing by nothing for a quadrant without pixels and answers NaN; here
    such a quadrant counts 0.

    Source: Fan et al., "Structure-measure: A New Way to Evaluate Foreground Maps", ICCV 2017 (alpha = 0.5), as
    pysodmetrics computes it; evaluation of Wu et al., "RPCANet++", 2025.

    >>> protocol = DefectProtocol()
    >>> mask = torch.zeros(1, 1, 8, 8)
    >>> mask[..., 2:6, 2:6] = 1
    >>> protocol.update(mask, mask)
    >>> {name: round(value.item(), 6) for name, value in protocol.compute().items()}["smeasure"]
    1.0
    """

    on_gpu = False  # pysodmetrics counts on the CPU
    shape_sum: Tensor

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__(threshold)
        self.structure, self.error = _Structure(alpha=0.5), MAE()
        # S-measure and mean absolute error
        self.add_state("shape_sum", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def binarise(self, probability: np.ndarray) -> np.ndarray:
        return relative_to_peak(probability) > 0.5

    def count_picture(self, probability: np.ndarray, predicted: np.ndarray, mask: np.ndarray) -> None:
        super().count_picture(probability, predicted, mask)
        p = probability.astype(np.float64)
        values = [self.structure.cal_sm(p, mask), self.error.cal_mae(p, mask)]
        self.shape_sum += torch.tensor(values, dtype=torch.float64, device=self.shape_sum.device)

    def compute(self) -> dict[str, Tensor]:
        images = int(self.count[3])
        smeasure, mae = (torch.tensor(ratio(x, images), dtype=torch.float64) for x in self.shape_sum.tolist())
        return {"smeasure": smeasure, "mae": mae} | super().compute()
