"""Evaluation protocols by name, as torchmetrics: the same prediction, counted as each community does."""

from torchmetrics import Metric, MetricCollection

from rpcanet.metrics.centroid import CentroidProtocol
from rpcanet.metrics.defect import DefectProtocol
from rpcanet.metrics.overlap import OverlapProtocol
from rpcanet.metrics.pixel_curves import PixelCurves
from rpcanet.metrics.protocol import PixelProtocol, TargetProtocol
from rpcanet.metrics.roc import TargetROC
from rpcanet.metrics.vessel import VesselProtocol

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
