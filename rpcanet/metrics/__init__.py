"""Evaluation protocols by name, as torchmetrics: the same prediction, counted as each community does."""

from torchmetrics import Metric, MetricCollection

from .centroid import CentroidProtocol
from .defect import DefectProtocol
from .overlap import OverlapProtocol
from .pixel_curves import PixelCurves
from .protocol import PixelProtocol, TargetProtocol
from .roc import TargetROC
from .vessel import VesselProtocol

PROTOCOLS: dict[str, tuple[type[Metric], ...]] = {
    "overlap": (OverlapProtocol, TargetROC),
    "centroid": (CentroidProtocol, TargetROC),
    "vessel": (VesselProtocol,),
    "defect": (DefectProtocol,),
}

__all__ = [
    "PROTOCOLS",
    "CentroidProtocol",
    "DefectProtocol",
    "OverlapProtocol",
    "PixelCurves",
    "PixelProtocol",
    "TargetProtocol",
    "TargetROC",
    "VesselProtocol",
    "protocol",
]


def protocol(name: str) -> MetricCollection:
    """The metrics of the protocol called `name`: "overlap", "centroid", "vessel" or "defect".

    `compute()` returns scalars, all fractions, as the protocol's class says; "overlap" and "centroid" also count
    the ROC over targets, with the curve in roc_pd and roc_fa.

    >>> sorted(protocol("overlap").compute())
    ['auc', 'f1', 'fa', 'iou', 'niou', 'pd', 'precision', 'recall', 'roc_fa', 'roc_pd']
    >>> list(protocol("defect").compute())
    ['smeasure', 'mae', 'iou', 'niou', 'f1', 'precision', 'recall']
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    return MetricCollection([metric() for metric in PROTOCOLS[name]], compute_groups=False)
