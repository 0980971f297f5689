"""Unfolded robust-PCA networks that split a picture into a low-rank background and sparse objects."""

try:
    from kernels import large_kernel_conv2d as _  # noqa: F401 - another package called kernels has none
except ImportError as error:
    raise ImportError(
        f"rpcanet needs unfoldkit's package 'kernels', but {error}: another package of that name is in its place; "
        "install unfoldkit into an environment of its own"
    ) from error

from rpcanet.evaluation import decompose, evaluate, score
from rpcanet.inference import optimize
from rpcanet.losses import DecompositionLoss, decomposition_loss, soft_iou_loss
from rpcanet.low_rank_rpcanet import LowRankRPCANet
from rpcanet.rpcanet import RPCANet
from rpcanet.rpcanet_plus_plus import RPCANetPlusPlus
from rpcanet.unfolding import Decomposition, StageOutput, Unfolding
from rpcanet.weights import (
    build,
    from_published,
    load_weights,
    read_training,
    save_weights,
    trained_seed,
    trained_size,
)

__all__ = [
    "Decomposition",
    "DecompositionLoss",
    "LowRankRPCANet",
    "RPCANet",
    "RPCANetPlusPlus",
    "StageOutput",
    "Unfolding",
    "build",
    "decompose",
    "decomposition_loss",
    "evaluate",
    "from_published",
    "load_weights",
    "optimize",
    "read_training",
    "save_weights",
    "score",
    "soft_iou_loss",
    "trained_seed",
    "trained_size",
]
