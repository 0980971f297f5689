"""Attention over channels: each channel of a picture's features is scaled by what the whole picture says of it."""

from collections import OrderedDict
from collections.abc import Iterable

from torch import Tensor, nn

from .layers import conv1x1, conv3x3

REDUCTION = 16


def bottleneck(channels: int) -> nn.Sequential:
    """Conv1x1(C->C/16) ReLU Conv1x1(C/16->C), with at least one channel inside."""
    inside = max(1, channels // REDUCTION)
    return nn.Sequential(conv1x1(channels, inside), nn.ReLU(inplace=True), conv1x1(inside, channels))


class ChannelAttention(nn.Module):
    """Channel attention by global averages and maxima.

        A(z) = z * sigmoid(m(avg z) + m(max z)),   m = Conv1x1(C->C/16) ReLU Conv1x1(C/16->C)

    avg and max are taken over the picture; both share m.

    Shapes: z and A(z) are (batch, C, height, width).

    Source: Xiong et al., "DRPCA-Net", TGRS 2025, its residual blocks; after Woo et al., "CBAM", ECCV 2018, eq. 2.

    >>> import torch
    >>> ChannelAttention(32)(torch.rand(2, 32, 16, 20)).shape
    torch.Size([2, 32, 16, 20])
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.fc = bottleneck(channels)

    def forward(self, z: Tensor) -> Tensor:
        return z * self.weights(z.mean((2, 3), keepdim=True), z.amax((2, 3), keepdim=True))

    def weights(self, average: Tensor, largest: Tensor) -> Tensor:
        """sigmoid(m(average) + m(largest)); all are (batch, C, 1, 1)."""
        return (self.fc(average) + self.fc(largest)).sigmoid()


class SqueezeExcitation(nn.Module):
    """Channel attention by global averages alone.

        SE(z) = z * sigmoid(Conv1x1(C/16->C)(ReLU(Conv1x1(C->C/16)(mean of z over the picture))))

    Shapes: z and SE(z) are (batch, C, height, width).

    Source: Hu et al., "Squeeze-and-excitation networks", CVPR 2018, eq. 2 to 4; as L-RPCANet has it.

    >>> import torch
    >>> SqueezeExcitation(32)(torch.rand(2, 32, 16, 20)).shape
    torch.Size([2, 32, 16, 20])
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.excitation = bottleneck(channels)

    def forward(self, z: Tensor) -> Tensor:
        return z * self.excitation(z.mean((2, 3), keepdim=True)).sigmoid()


class AttentiveStack(nn.Sequential):
    """final(SE(f(x))): features f of C channels, `SqueezeExcitation`, and final = Conv3x3(C->1).

    Shapes: x and the answer are (batch, 1, height, width).

    Source: L-RPCANet, all of its steps.
    """

    def __init__(self, features: Iterable[nn.Module], channels: int) -> None:
        parts = {
            "features": nn.Sequential(*features),
            "attention": SqueezeExcitation(channels),
            "projection": conv3x3(channels, 1),
        }
        super().__init__(OrderedDict(parts))
