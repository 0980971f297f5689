"""DCPM, the deep contrast prior module: where a picture stands out from its surroundings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kernels import large_kernel_conv2d
from rpcanet.modules.layers import conv1x1, conv3x3

WINDOW = 17


class ChannelGate(nn.Sequential):
    """theta(z): one weight in (0, 1) a channel, (batch, C, height, width) -> (batch, C, 1, 1).

    Global average pool, Conv1x1(C -> C/4), BN, ReLU, Conv1x1(C/4 -> C), BN, sigmoid.
    """

    def __init__(self, channels: int) -> None:
        squeezed = channels // 4
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            conv1x1(channels, squeezed),
            nn.BatchNorm2d(squeezed),
            nn.ReLU(),
            conv1x1(squeezed, channels),
            nn.BatchNorm2d(channels),
            nn.Sigmoid(),
        )


class CentralContrast(nn.Module):
    """A centre's gated response minus its window's.

        contrast(z) = theta(z) * centre(z) - conv(z)

    conv is a 17x17 convolution C -> C without bias, zero padding 8; centre is the 1x1 convolution whose
    weight is that kernel summed over its window; theta is a `ChannelGate`. With theta = 1 a constant
    picture answers zero away from its border.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, WINDOW, WINDOW))
        nn.init.xavier_normal_(self.weight)
        self.gate = ChannelGate(channels)

    def forward(self, z: Tensor) -> Tensor:
        centre = F.conv2d(z, self.weight.sum(dim=(2, 3), keepdim=True))
        surround = large_kernel_conv2d(z, self.weight)
        return self.gate(z) * centre - surround


class DCPM(nn.Module):
    """The contrast prior that guides the object step.

        w(x) = Conv(C->1)(LeakyReLU_0.1(BN(contrast(ReLU(Conv(1->C)(x))))))

    Shapes: x and w are (batch, 1, height, width).

    Source: Wu et al., "RPCANet++", arXiv 2508.04190, section III-C.

    >>> DCPM(channels=8).eval()(torch.rand(2, 1, 16, 20)).shape
    torch.Size([2, 1, 16, 20])
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Sequential(conv3x3(1, channels), nn.ReLU())
        self.contrast = CentralContrast(channels)
        self.projection = nn.Sequential(nn.BatchNorm2d(channels), nn.LeakyReLU(0.1), conv3x3(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.contrast(self.embedding(x)))
