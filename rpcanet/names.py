"""What networks, protocols, classical methods and measures are called on command lines and in tables."""

from typing import Literal

NetworkName = Literal["rpcanet", "rpcanet++", "lowrank", "drpca_net", "l_rpcanet"]
ProtocolName = Literal["overlap", "centroid", "vessel", "defect"]
LossName = Literal["soft_iou", "batch_iou"]
MethodName = Literal["pcp", "pssv", "wnnm", "ipi", "pstnn"]
CompressionName = Literal["separable", "monarch", "dictionary", "low_rank_plus_sparse"]

LABELS = {"iou": "IoU", "niou": "nIoU", "f1": "F1", "pd": "Pd", "fa": "Fa", "auc": "AUC", "mae": "MAE"}
UNITS = {"fa": (1e5, "1e-5"), "auc": (1, ""), "mae": (1, "")}  # all others in percent
