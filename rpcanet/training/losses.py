"""The losses that the networks are trained with."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..names import LossName
from ..networks.unfolding import Decomposition

BALANCE = 0.1  # of the two parts of `batch_iou_loss`


class DecompositionLoss(NamedTuple):
    """The total and its parts: total = soft_iou + fidelity_weight * fidelity; scalars.

    soft_iou is the loss of the objects, by whichever name.
    """

    total: Tensor
    soft_iou: Tensor
    fidelity: Tensor


def soft_iou_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """One minus the soft intersection over union, averaged over the batch; a scalar.

        p = sigmoid(logits)
        SoftIoU = 1 - mean over the batch of (sum(p m) + 1) / (sum(p) + sum(m) - sum(p m) + 1)

    Shapes: logits and mask are (batch, 1, height, width); the mask holds 0 and 1, or shares between.
    Half-precision logits are taken as float32, in which large pictures' sums do not overflow; so is the loss then.

    Of all constant answers "an object everywhere" costs least, and where all logits pass 17 the gradient is 0 in
    float32: there a network stays. Untrained logits double with each stage, O_k = 2 O_{k-1} - f - epsilon g, so
    that deep networks go there sooner; `batch_iou_loss` keeps a gradient.

    Raises ValueError where the shapes differ or are others, or the dtypes not real.

    Source: Wu et al., "RPCANet", WACV 2024, section 3.5.

    >>> mask = torch.tensor([[[[0.0, 1.0]]]])
    >>> round(soft_iou_loss(torch.tensor([[[[-20.0, 20.0]]]]), mask).item(), 6)
    0.0
    """
    logits, mask = _summable(logits, mask)
    return 1 - _soft_iou(logits.sigmoid(), mask, dims=(1, 2, 3)).mean()


def batch_iou_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """A soft intersection over union of the whole batch and a focal cross entropy; a scalar.

        p = sigmoid(logits)
        loss = 1 - (sum(p m) + 1) / (sum(p) + sum(m) - sum(p m) + 1) + BALANCE * focal
        focal = sum((p - m)^2 * cross entropy(p, m)) / (sum(m) + 1),   all sums over the batch

    For sets of pictures most of which hold no object. There the mean over pictures of `soft_iou_loss` is nearly
    best at "nothing anywhere", which scores 1 on each empty picture, while one pixel too many in it costs a half:
    a network learns that first and has no gradient left. Over the batch the empty pictures only add their false
    alarms to the union; the focal part, over the object pixels, keeps a gradient where p has saturated.

    Shapes, dtypes and errors as of `soft_iou_loss`.

    Source: batch Dice as in Isensee et al., "nnU-Net", Nature Methods 2021; Lin et al., "Focal Loss for Dense
    Object Detection", ICCV 2017, with gamma 2.

    >>> mask = torch.tensor([[[[0.0, 1.0]]], [[[0.0, 0.0]]]])
    >>> round(batch_iou_loss(40 * mask - 20, mask).item(), 6)
    0.0
    """
    logits, mask = _summable(logits, mask)
    probability = logits.sigmoid()
    entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
    focal = ((probability - mask) ** 2 * entropy).sum() / (mask.sum() + 1)
    return 1 - _soft_iou(probability, mask, dims=(0, 1, 2, 3)) + BALANCE * focal


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "soft_iou": soft_iou_loss,
    "batch_iou": batch_iou_loss,
}


def decomposition_loss(
    decomposition: Decomposition,
    image: Tensor,
    mask: Tensor,
    fidelity_weight: float = 0.01,
    kind: LossName = "soft_iou",
) -> DecompositionLoss:
    """Objects that fit the mask and a restoration that fits the picture.

        loss = SoftIoU(sigmoid(O_K), mask) + fidelity_weight * MSE(D_K, D_0)

    Shapes: image (= D_0) and mask are (batch, 1, height, width).
    kind: "soft_iou" as published, or "batch_iou" (`batch_iou_loss`) where most pictures hold no object.

    Raises ValueError for another kind, and what `soft_iou_loss` raises.

    Source: Wu et al., "RPCANet", WACV 2024, section 3.5.

    >>> from unfoldkit.rpcanet import RPCANet
    >>> image = torch.rand(2, 1, 16, 16)
    >>> loss = decomposition_loss(RPCANet(stages=1)(image), image, (image > 0.9).float())
    >>> bool(loss.total == loss.soft_iou + 0.01 * loss.fidelity)
    True
    """
    if kind not in LOSSES:
        raise ValueError(f"kind must be one of {', '.join(LOSSES)}, got {kind!r}")
    objects = LOSSES[kind](decomposition.object, mask)
    fidelity = F.mse_loss(_widened(decomposition.restoration), _widened(image))
    return DecompositionLoss(objects + fidelity_weight * fidelity, objects, fidelity)


def _summable(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the logits' precision, float32 at least; raises ValueError where they do not fit."""
    if logits.shape != mask.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and mask {tuple(mask.shape)} differ in shape")
    if logits.ndim != 4 or not logits.is_floating_point() or mask.is_complex():
        raise ValueError(
            f"logits and mask must be real (batch, 1, height, width), got {logits.dtype} and {mask.dtype} "
            f"of shape {tuple(logits.shape)}"
        )
    wide = _widened(logits)
    return wide, mask.to(wide.dtype)


def _widened(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _soft_iou(probability: Tensor, mask: Tensor, dims: tuple[int, ...]) -> Tensor:
    intersection = (probability * mask).sum(dims)
    union = probability.sum(dims) + mask.sum(dims) - intersection
    return (intersection + 1) / (union + 1)
