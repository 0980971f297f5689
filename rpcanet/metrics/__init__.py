"""Evaluation protocols by name, as torchmetrics: the same prediction, counted as each community does."""

from torchmetrics import MetricCollection

from .centroid import CentroidProtocol
from .defect import DefectProtocol
from .overlap import OverlapProtocol
from .pixel_curves import PixelCurves
from .protocol import PixelProtocol, TargetProtocol
from .roc import TargetROC
from .rows import PROTOCOLS, PictureRows, ThresholdCurve, counted
from .vessel import VesselProtocol

__all__ = [
    "PROTOCOLS",
    "CentroidProtocol",
    "DefectProtocol",
    "OverlapProtocol",
    "PictureRows",
    "PixelCurves",
    "PixelProtocol",
    "TargetProtocol",
    "TargetROC",
    "ThresholdCurve",
    "VesselProtocol",
    "protocol",
]


def protocol(name: str, threshold: float | None = None) -> MetricCollection:
    """The metrics of the protocol called `name`: "overlap", "centroid", "vessel" or "defect".

    `compute()` returns scalars, all fractions, as the protocol's class says; "overlap" and "centroid" also count
    the ROC over targets, with the curve in roc_pd and roc_fa. With `threshold` a pixel is predicted when its
    probability is above it, in place of the protocol's own rule.

    Raises ValueError for another name, and a threshold that is not at least 0 and below 1.

    >>> sorted(protocol("overlap").compute())
    ['auc', 'f1', 'fa', 'iou', 'niou', 'pd', 'precision', 'recall', 'roc_fa', 'roc_pd']
    >>> list(protocol("defect").compute())
    ['smeasure', 'mae', 'iou', 'niou', 'f1', 'precision', 'recall']
    """
    numbers = counted(name, threshold)
    curves = [TargetROC()] if isinstance(numbers, TargetProtocol) else []
    return MetricCollection([numbers, *curves], compute_groups=False)
