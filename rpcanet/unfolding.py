"""The stage loop that every network of this package shares: a network is its stage."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn


class StageOutput(NamedTuple):
    """What one stage makes of a picture; each (batch, 1, height, width).

    background: B_k.  object: O_k, read as logits.  restoration: D_k = IRM(B_k + O_k).
    """

    background: Tensor
    object: Tensor
    restoration: Tensor


class Decomposition(NamedTuple):
    """A picture split into background and objects; each tensor is (batch, 1, height, width).

    background: B_K.  object: O_K as logits, so that `object.sigmoid()` is the probability of an object.
    restoration: D_K.  stages: every stage's output in order, empty unless it was asked for.
    """

    background: Tensor
    object: Tensor
    restoration: Tensor
    stages: tuple[StageOutput, ...] = ()


class UnfoldedNetwork(nn.Module, PyTorchModelHubMixin):
    """K stages in a row, from D_0 = image and O_0 = 0. A stage is a module

        stage(D_{k-1}, O_{k-1}, memory_{k-1}) -> (StageOutput(B_k, O_k, D_k), memory_k)

    The grey levels v of a picture, from 0 to 255, enter as (v - mean) / std; both numbers belong to the
    weights and travel with them.
    """

    def __init__(self, stages: Sequence[nn.Module], channels: int, mean: float, std: float) -> None:
        super().__init__()
        if not stages:
            raise ValueError("stages must be at least 1")
        if not std > 0:
            raise ValueError(f"std must be positive, got {std}")
        self.stages = nn.ModuleList(stages)
        self.channels = channels
        self.mean = float(mean)
        self.std = float(std)

    @property
    def architecture(self) -> dict[str, int | float]:
        """The arguments that build this network again."""
        return {"stages": len(self.stages), "channels": self.channels, "mean": self.mean, "std": self.std}

    def forward(self, image: Tensor, return_stages: bool = False) -> Decomposition:
        """Split `image`, (batch, 1, height, width) of any height and width, into a `Decomposition`.

        Raises ValueError where `image` has another shape or is not floating point.
        """
        if image.ndim != 4 or image.shape[1] != 1 or not image.is_floating_point():
            raise ValueError(
                "image must be a floating-point tensor of shape (batch, 1, height, width), "
                f"got {image.dtype} of shape {tuple(image.shape)}"
            )
        restoration, object_, memory = image, torch.zeros_like(image), None
        outputs = []
        for stage in self.stages:
            output, memory = stage(restoration, object_, memory)
            _, object_, restoration = output
            if return_stages:
                outputs.append(output)
        return Decomposition(output.background, output.object, output.restoration, tuple(outputs))
