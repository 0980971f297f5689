"""A network's numbers over a data set, and its answer for one picture."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...datasets.records import padding_of
from ..metrics import protocol
from ..networks.unfolding import Decomposition, Unfolding
from .tiling import padded, tiled


@torch.inference_mode()
def evaluate(
    net: Unfolding, batches: Iterable[Any], protocol_name: str = "overlap", tile: int = 1024
) -> dict[str, Tensor]:
    """What the protocol counts for `net` over `batches`.

    Each batch has `image` and `mask`, (batch, 1, height, width), normalised as the network expects; pictures
    larger than `tile` are cut into tiles (`rpcanet.inference.tiling`). The network is used as it stands; put it in
    evaluation mode first. Returns the values of `rpcanet.metrics.protocol`.

    >>> from unfoldkit.rpcanet import RPCANet
    >>> from unfoldkit.datasets import SegmentationDataset, SyntheticScenes
    >>> from torch.utils.data import DataLoader
    >>> batches = DataLoader(SegmentationDataset(SyntheticScenes("test", count=2), size=64), batch_size=2)
    >>> sorted(evaluate(RPCANet(stages=1).eval(), batches))[:4]
    ['auc', 'f1', 'fa', 'iou']
    """
    device, padding = next(net.parameters()).device, padding_of(protocol_name)

    def probability(image: Tensor) -> Tensor:
        return probability_of(answer(net, image.to(device), padding, tile))

    return score(probability, batches, protocol_name)


def probability_of(decomposition: Decomposition) -> Tensor:
    """sigmoid(O); raises ValueError where O is infinite or NaN.

    >>> probability_of(Decomposition(torch.zeros(1), torch.zeros(1), torch.zeros(1)))
    tensor([0.5000])
    """
    if not decomposition.object.isfinite().all():
        raise ValueError(
            "the answer is not finite everywhere: weights or picture lead beyond the range of the features, "
            "which on a GPU float32 has more of than bfloat16"
        )
    return decomposition.object.sigmoid()


def score(
    probability: Callable[[Tensor], Tensor], batches: Iterable[Any], protocol_name: str = "overlap"
) -> dict[str, Tensor]:
    """What the protocol counts for any map from images to object probabilities, (batch, 1, height, width).

    >>> from unfoldkit.datasets import SegmentationDataset, SyntheticScenes
    >>> from torch.utils.data import DataLoader
    >>> batches = DataLoader(SegmentationDataset(SyntheticScenes("test", count=2), size=64))
    >>> score(lambda image: image, batches, "defect")["mae"] > 0.2
    tensor(True)
    """
    metrics = protocol(protocol_name)
    for batch in batches:
        metrics.update(probability(batch.image).cpu(), batch.mask)
    return metrics.compute()


def answer(net: Unfolding, image: Tensor, padding: int = 1, tile: int = 1024) -> Decomposition:
    """The network's answer for `image`, padded to a multiple, in tiles where it is larger than `tile`."""
    return padded(lambda x: tiled(net, x, tile), image, padding)


@torch.inference_mode()
def decompose(
    net: Unfolding, levels: Tensor, size: int | None = None, tile: int = 1024, padding: int = 1
) -> Decomposition:
    """Split a picture of grey levels into background and objects, at the picture's own size.

    levels: (height, width), 0 to 255, of any dtype.  size: the picture is brought to (size, size) for the
    network and its answer back again, bilinearly; None runs the network on the picture as it is.  tile: where
    that is larger than (tile, tile), it is cut into overlapping tiles (`rpcanet.inference.tiling`).  padding: what
    the network sees is padded to a multiple of it, as `padding_of` has it for vessels.

    The parts come as (1, 1, height, width) in the network's dtype: background and restoration in grey levels, the
    object as logits.

    Raises ValueError where levels is not two-dimensional, real, finite and there, size negative, or the network in
    training mode.

    >>> from unfoldkit.rpcanet import RPCANet
    >>> decompose(RPCANet(stages=1).eval(), torch.full((30, 41), 128), size=64).object.shape
    torch.Size([1, 1, 30, 41])
    """
    if levels.ndim != 2 or levels.numel() == 0:
        raise ValueError(f"levels must be (height, width), got shape {tuple(levels.shape)}")
    if levels.is_complex():
        raise ValueError(f"levels must be real, got {levels.dtype}")
    if size is not None and size < 0:
        raise ValueError(f"size must not be negative, got {size}")
    if levels.is_floating_point() and not levels.isfinite().all():
        raise ValueError("levels must be finite, got NaN or infinity")
    if net.training:
        raise ValueError("net must be in evaluation mode: call net.eval() first")
    device = next(net.parameters()).device
    image = ((levels.float() - net.mean) / net.std)[None, None].to(device, net.input_dtype)
    seen = _resized(image, (size, size)) if size else image
    background, object_, restoration = answer(net, seen, padding, tile)[:3]
    return Decomposition(
        background=_resized(background * net.std + net.mean, levels.shape),
        object=_resized(object_, levels.shape),
        restoration=_resized(restoration * net.std + net.mean, levels.shape),
    )


def _resized(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    return x if x.shape[2:] == shape else F.interpolate(x, shape, mode="bilinear", align_corners=False)
