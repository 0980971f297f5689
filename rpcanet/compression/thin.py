"""Compressed convolutions in inference: as thin convolutions where these are faster, else as a plain weight."""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..modules.dcpm import WINDOW, CentralContrast
from ..modules.mam import ConvLSTM
from .forms import FactoredContrast, FactoredConv, unfactor

# How many times fewer multiplications thin convolutions must need, by the height of the window: dense ones go by
# Winograd's filtering and Fourier tiles.
REPAYS = {3: 2.5, WINDOW: 8.0}


class Shuffle(nn.Module):
    """Channels counted as (k, l, t) in the order (l, k, t), with k and l from 1 to `blocks`."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.blocks, self.blocks, -1)).transpose(1, 2).flatten(1, 3)


class ThinConvs(nn.Sequential):
    """A vertical convolution and a horizontal one, of a Monarch matrix in groups with a shuffle between them."""


class ThinConvLSTM(ConvLSTM):
    """`ConvLSTM` whose two convolutions are thin ones."""

    def gates(self, z: Tensor, hidden: Tensor) -> Tensor:
        return self.gates_x(z) + self.gates_h(hidden)


def thin(layer: FactoredConv | FactoredContrast) -> ThinConvs | None:
    """The layer in thin convolutions, None where its weight is faster."""
    shape, monarch = layer.factors.shape, layer.factors.monarch()
    if monarch is None or layer.factors.operations * REPAYS[shape[2]] > shape.numel():
        return None
    outputs, inputs, height, width = shape
    left, right = (factor.detach() for factor in monarch)
    blocks, between = len(left), right.shape[0] * right.shape[1]
    first = nn.Conv2d(inputs, between, (height, 1), padding=(height // 2, 0), groups=blocks, bias=False)
    first.weight = nn.Parameter(right.reshape(between, -1, height, 1))
    second = nn.Conv2d(between, outputs, (1, width), padding=(0, width // 2), groups=blocks)
    taps = left.unflatten(1, (-1, width)).flatten(0, 1).transpose(1, 2)
    second.weight = nn.Parameter(taps.reshape(outputs, -1, 1, width))
    bias = layer.bias if isinstance(layer, FactoredConv) else None
    second.bias = nn.Parameter(taps.new_zeros(outputs) if bias is None else bias.detach())
    return ThinConvs(first, *([Shuffle(blocks)] if blocks > 1 else []), second).eval()


def thin_window(contrast: CentralContrast, norm: nn.BatchNorm2d) -> ThinConvs | None:
    """The window times -a with bias b, of a norm with scale a and shift b; None where it is not thin."""
    convs = thin(contrast) if isinstance(contrast, FactoredContrast) else None
    if convs is None:
        return None
    second = fuse_conv_bn_eval(convs[-1], norm)
    second.weight = nn.Parameter(-second.weight.detach())
    return ThinConvs(*convs[:-1], second)


def settled(stage: nn.Module) -> nn.Module:
    """The stage, in place, with every compressed 3x3 layer in thin convolutions or as a plain layer."""
    for module in list(stage.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, FactoredConv):
                convs = thin(child)
                if convs is None:
                    unfactor(child)
                    continue
                setattr(module, name, convs)
                if isinstance(module, ConvLSTM):
                    module.__class__ = ThinConvLSTM
    return stage


def unfactored(stage: nn.Module) -> nn.Module:
    """The stage, in place, with every compressed 3x3 layer as a plain layer."""
    for layer in list(stage.modules()):
        if isinstance(layer, FactoredConv):
            unfactor(layer)
    return stage


def apart(layers: Iterable[nn.Module]) -> list[nn.Module]:
    """The layers with thin convolutions one by one."""
    return [part for layer in layers for part in (layer if isinstance(layer, ThinConvs) else [layer])]
