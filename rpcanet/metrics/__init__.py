"""Evaluation protocols by name, as torchmetrics: the same prediction, counted as each community does."""

from torchmetrics import MetricCollection

from rpcanet.metrics.centroid import CentroidProtocol
from rpcanet.metrics.overlap import OverlapProtocol
from rpcanet.metrics.protocol import SegmentationProtocol
from rpcanet.metrics.roc import TargetROC

PROTOCOLS: dict[str, type[SegmentationProtocol]] = {"overlap": OverlapProtocol, "centroid": CentroidProtocol}

__all__ = [
    "PROTOCOLS",
    "CentroidProtocol",
    "OverlapProtocol",
    "SegmentationProtocol",
    "TargetROC",
    "protocol",
]


def protocol(name: str) -> MetricCollection:
    """The metrics of the protocol called `name`, "overlap" or "centroid", with the ROC over targets.

    `compute()` returns scalars iou, niou, f1, precision, recall, pd, fa, auc as fractions, and the curve in
    roc_pd and roc_fa.

    >>> sorted(protocol("overlap").compute())
    ['auc', 'f1', 'fa', 'iou', 'niou', 'pd', 'precision', 'recall', 'roc_fa', 'roc_pd']
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    return MetricCollection([PROTOCOLS[name](), TargetROC()], compute_groups=False)
