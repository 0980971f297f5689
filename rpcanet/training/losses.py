"""The loss that both networks are trained with."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ..networks.unfolding import Decomposition


class DecompositionLoss(NamedTuple):
    """The total and its parts: total = soft_iou + fidelity_weight * fidelity; scalars."""

    total: Tensor
    soft_iou: Tensor
    fidelity: Tensor


def soft_iou_loss(logits: Tensor, mask: Tensor) -> Tensor:
    """One minus the soft intersection over union, averaged over the batch; a scalar.

        p = sigmoid(logits)
        SoftIoU = 1 - mean over the batch of (sum(p m) + 1) / (sum(p) + sum(m) - sum(p m) + 1)

    Shapes: logits and mask are (batch, 1, height, width); the mask holds 0 and 1.

    Raises ValueError where the shapes differ or are others, or the dtypes not real.

    Source: Wu et al., "RPCANet", WACV 2024, section 3.5.

    >>> import torch
    >>> mask = torch.tensor([[[[0.0, 1.0]]]])
    >>> round(soft_iou_loss(torch.tensor([[[[-20.0, 20.0]]]]), mask).item(), 6)
    0.0
    """
    if logits.shape != mask.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and mask {tuple(mask.shape)} differ in shape")
    if logits.ndim != 4 or not logits.is_floating_point() or mask.is_complex():
        raise ValueError(
            f"logits and mask must be real (batch, 1, height, width), got {logits.dtype} and {mask.dtype} "
            f"of shape {tuple(logits.shape)}"
        )
    probability = logits.sigmoid()
    dims = (1, 2, 3)
    intersection = (probability * mask).sum(dims)
    union = probability.sum(dims) + mask.sum(dims) - intersection
    return 1 - ((intersection + 1) / (union + 1)).mean()


def decomposition_loss(
    decomposition: Decomposition, image: Tensor, mask: Tensor, fidelity_weight: float = 0.01
) -> DecompositionLoss:
    """Objects that fit the mask and a restoration that fits the picture.

        loss = SoftIoU(sigmoid(O_K), mask) + fidelity_weight * MSE(D_K, D_0)

    Shapes: image (= D_0) and mask are (batch, 1, height, width).

    Source: Wu et al., "RPCANet", WACV 2024, section 3.5.

    >>> import torch
    >>> from unfoldkit.rpcanet import RPCANet
    >>> image = torch.rand(2, 1, 16, 16)
    >>> loss = decomposition_loss(RPCANet(stages=1)(image), image, (image > 0.9).float())
    >>> bool(loss.total == loss.soft_iou + 0.01 * loss.fidelity)
    True
    """
    soft_iou = soft_iou_loss(decomposition.object, mask)
    fidelity = F.mse_loss(decomposition.restoration, image)
    return DecompositionLoss(soft_iou + fidelity_weight * fidelity, soft_iou, fidelity)
