"""BAM, the background approximation module: a learned proximal step towards a low-rank background."""

from torch import Tensor, nn

from .channel_attention import AttentiveStack
from .layers import BatchNorm, Stack, conv1x1, conv3x3, conv_stack, rectified_convs
from .mam import MAM, Memory


class BAM(nn.Module):
    """Background step of RPCANet.

        B = x + f(x),   x = D - O,   f = Conv(1->C) BN ReLU, 3 x [Conv(C->C) BN ReLU], Conv(C->1)

    Shapes: x and B are (batch, 1, height, width).

    Source: Wu et al., "RPCANet", WACV 2024, section 3.2.

    >>> import torch
    >>> BAM(channels=8)(torch.rand(2, 1, 16, 20)).shape
    torch.Size([2, 1, 16, 20])
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.layers = conv_stack(channels, hidden=3, batch_norm=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class MemoryBAM(nn.Module):
    """Background step of RPCANet++, which remembers the features of earlier stages.

        z = ReLU(BN(Conv(1->C)(x)))
        h, memory = MAM(z, memory)
        B = x + Conv(C->1)(h)

    Shapes: x and B are (batch, 1, height, width); the memory holds two (batch, C, height, width) states.

    Source: Wu et al., "RPCANet++", arXiv 2508.04190, section III-B.

    >>> import torch
    >>> first, second = MemoryBAM(8, first=True), MemoryBAM(8, first=False)
    >>> background, memory = first(torch.rand(2, 1, 16, 20), None)
    >>> background, memory = second(background, memory)
    >>> background.shape, memory.cell.shape
    (torch.Size([2, 1, 16, 20]), torch.Size([2, 8, 16, 20]))
    """

    def __init__(self, channels: int = 32, *, first: bool) -> None:
        super().__init__()
        self.embedding = Stack(conv3x3(1, channels), BatchNorm(channels), nn.ReLU(inplace=True))
        self.mam = MAM(channels, first=first)
        self.projection = conv3x3(channels, 1)

    def forward(self, x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        features, memory = self.mam(self.embedding(x), memory)
        return x + self.projection(features), memory


class LightBAM(nn.Module):
    """Background step of L-RPCANet.

        B = x + final(SE(f(x))),   x = D' - O' - N'
        f = Conv1x1(1->c) BN ReLU, 3 x [Conv(c->c) BN ReLU], Conv(c->C),   final = Conv(C->1)

    SE is `SqueezeExcitation`.

    Shapes: x and B are (batch, 1, height, width).

    Source: L-RPCANet, its background approximation module.

    >>> import torch
    >>> LightBAM(channels=16, narrow=4)(torch.rand(2, 1, 16, 20)).shape
    torch.Size([2, 1, 16, 20])
    """

    def __init__(self, channels: int = 32, narrow: int = 16) -> None:
        super().__init__()
        layers = rectified_convs(conv1x1(1, narrow), hidden=3, batch_norm=True)
        self.layers = AttentiveStack([*layers, conv3x3(narrow, channels)], channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)
