"""Compressed layers in inference: windows as thin convolutions where these are faster, all else as plain weights.

Plain 3x3 layers stay ahead of thin ones: on a CPU they go by Winograd's filtering, on a GPU one kernel takes less
than two. So do windows in 16 bits on a GPU, whose kernel keeps them on chip.
"""

from typing import TypeVar

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..modules.dcpm import CentralContrast
from .forms import FactoredContrast, FactoredConv, unfactor

# How many times fewer multiplications two thin convolutions must need than the window: on a CPU that one goes by
# Fourier tiles.
REPAYS = {"cpu": 8, "cuda": 2}

Stage = TypeVar("Stage", bound=nn.Module)


class Shuffle(nn.Module):
    """Channels counted as (k, l, t) in the order (l, k, t), with k and l from 1 to `blocks`."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.blocks, self.blocks, -1)).transpose(1, 2).flatten(1, 3)


def plain(stage: Stage) -> Stage:
    """The stage, in place, with every compressed 3x3 layer as a plain layer."""
    for layer in list(stage.modules()):
        if isinstance(layer, FactoredConv):
            unfactor(layer)
    return stage


def thin_window(contrast: CentralContrast, norm: nn.BatchNorm2d) -> nn.Sequential | None:
    """The window times -a with bias b, of a norm with scale a and shift b, in two thin convolutions.

    A vertical and a horizontal one, of a Monarch matrix in groups with a shuffle between; None where they would be
    slower.
    """
    factors = contrast.factors if isinstance(contrast, FactoredContrast) else None
    monarch = None if factors is None else factors.monarch()
    if factors is None or monarch is None or not repays(factors.operations, contrast.weight):
        return None
    outputs, inputs, height, width = factors.shape
    left, right = (factor.detach() for factor in monarch)
    blocks, between = len(left), right.shape[0] * right.shape[1]
    vertical = nn.Conv2d(inputs, between, (height, 1), padding=(height // 2, 0), groups=blocks, bias=False)
    vertical.weight = nn.Parameter(right.reshape(between, -1, height, 1))
    horizontal = nn.Conv2d(between, outputs, (1, width), padding=(0, width // 2), groups=blocks, bias=False)
    taps = left.unflatten(1, (-1, width)).flatten(0, 1).transpose(1, 2)
    horizontal.weight = nn.Parameter(taps.reshape(outputs, -1, 1, width))
    horizontal = fuse_conv_bn_eval(horizontal.eval(), norm)
    horizontal.weight = nn.Parameter(-horizontal.weight.detach())
    return nn.Sequential(vertical, Shuffle(blocks), horizontal)


def repays(operations: int, window: Tensor) -> bool:
    return operations * REPAYS.get(window.device.type, 1) <= window.numel()
