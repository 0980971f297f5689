"""NoiseStep: what is neither background nor object, as a part of its own."""

import torch
from torch import Tensor, nn

from .channel_attention import AttentiveStack
from .layers import conv3x3, rectified_convs


class NoiseStep(nn.Module):
    """Noise step of L-RPCANet.

        N = x - sigma * final(SE(r(x))),   x = N' + D' - B - O
        r = Conv(1->c) ReLU, n x [Conv(c->c) ReLU], Conv(c->C),   final = Conv(C->1)

    sigma is a learned step size, 0.01 at first; SE is `SqueezeExcitation`.

    Shapes: x and N are (batch, 1, height, width).

    Source: L-RPCANet, its noise reduction module.

    >>> NoiseStep(channels=16, narrow=4, hidden=3)(torch.rand(2, 1, 16, 20)).shape
    torch.Size([2, 1, 16, 20])
    """

    def __init__(self, channels: int = 32, narrow: int = 16, hidden: int = 6) -> None:
        super().__init__()
        self.sigma = nn.Parameter(torch.tensor([0.01]))
        layers = rectified_convs(conv3x3(1, narrow), hidden, batch_norm=False)
        self.layers = AttentiveStack([*layers, conv3x3(narrow, channels)], channels)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.sigma * self.layers(x)
