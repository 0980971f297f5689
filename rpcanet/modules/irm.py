"""IRM, the image restoration module: puts background and objects together again."""

from torch import Tensor, nn

from .channel_attention import AttentiveStack
from .layers import BatchNorm, conv1x1, conv3x3, conv_stack, rectified_convs
from .residual_group import SLOPE, ResidualGroup


class IRM(nn.Module):
    """Restoration step of RPCANet and RPCANet++.

        D = h(B + O),   h = Conv(1->C) BN ReLU, 3 x [Conv(C->C) BN ReLU], Conv(C->1)

    Shapes: the argument x = B + O and D are (batch, 1, height, width).

    Source: Wu et al., "RPCANet", WACV 2024, section 3.4.

    >>> import torch
    >>> IRM(channels=8)(torch.rand(2, 1, 16, 20)).shape
    torch.Size([2, 1, 16, 20])
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.layers = conv_stack(channels, hidden=3, batch_norm=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ResidualIRM(nn.Module):
    """Restoration step of DRPCA-Net.

        D = h(B + O),   h = Conv1x1(1->C) BN LeakyReLU_0.2 ResidualGroup Conv1x1(C->1)

    Shapes: the argument x = B + O and D are (batch, 1, height, width).

    Source: Xiong et al., "DRPCA-Net", TGRS 2025, its restoration by a dynamic residual group.

    >>> import torch
    >>> ResidualIRM(channels=8)(torch.rand(2, 1, 16, 20)).shape
    torch.Size([2, 1, 16, 20])
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv1x1(1, channels),
            BatchNorm(channels),
            nn.LeakyReLU(SLOPE, inplace=True),
            ResidualGroup(channels),
            conv1x1(channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LightIRM(nn.Module):
    """Restoration step of L-RPCANet.

        D = final(SE(m(B + O + N))),   m = Conv(1->C) BN ReLU, 3 x [Conv(C->C) BN ReLU],   final = Conv(C->1)

    SE is `SqueezeExcitation`.

    Shapes: the argument x = B + O + N and D are (batch, 1, height, width).

    Source: L-RPCANet, its image restoration module.

    >>> import torch
    >>> LightIRM(channels=16)(torch.rand(2, 1, 16, 20)).shape
    torch.Size([2, 1, 16, 20])
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        layers = rectified_convs(conv3x3(1, channels), hidden=3, batch_norm=True)
        self.layers = AttentiveStack(layers, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
