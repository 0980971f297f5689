"""OEM, the object extraction module: a learned proximal gradient step towards sparse objects."""

import torch
from torch import Tensor, nn

from .channel_attention import AttentiveStack
from .dcpm import DCPM
from .dynamic_gate import DynamicGate
from .layers import conv1x1, conv3x3, conv_stack, rectified_convs


class OEM(nn.Module):
    """Object step of RPCANet and RPCANet++.

        O = x - epsilon * g(x + w(x)),   x = O' + D - B
        g = Conv(1->C) ReLU, 6 x [Conv(C->C) ReLU], Conv(C->1)

    epsilon is a learned step size, 0.01 at first; w is the contrast prior `DCPM` in RPCANet++,
    zero in RPCANet.

    Shapes: x and O are (batch, 1, height, width).

    Source: Wu et al., "RPCANet", WACV 2024, section 3.3, and "RPCANet++", arXiv 2508.04190, section III-C.

    >>> OEM(channels=8)(torch.rand(2, 1, 16, 20)).shape
    torch.Size([2, 1, 16, 20])
    """

    def __init__(self, channels: int = 32, *, contrast_prior: bool = False) -> None:
        super().__init__()
        self.epsilon = nn.Parameter(torch.tensor([0.01]))
        self.layers = conv_stack(channels, hidden=6, batch_norm=False)
        self.dcpm = DCPM(channels) if contrast_prior else None

    def forward(self, x: Tensor) -> Tensor:
        guided = x if self.dcpm is None else x + self.dcpm(x)
        return x - self.epsilon * self.layers(guided)


class GatedOEM(nn.Module):
    """Object step of DRPCA-Net, whose mixing weight and step size follow from the picture.

        x = gamma O' + (1 - gamma) (D' - B),   O = x - epsilon g(x),   gamma = gate(O'),   epsilon = gate(x)
        g = Conv(1->C) ReLU, 6 x [Conv(C->C) ReLU], Conv(C->1)

    Each gate is a `DynamicGate` of its own, one number for each picture.

    Shapes: O', the residual D' - B and O are (batch, 1, height, width).

    Source: Xiong et al., "DRPCA-Net", TGRS 2025, its object step.

    >>> GatedOEM(channels=8)(torch.zeros(2, 1, 16, 20), torch.rand(2, 1, 16, 20)).shape
    torch.Size([2, 1, 16, 20])
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.gamma, self.epsilon = DynamicGate(), DynamicGate()
        self.layers = conv_stack(channels, hidden=6, batch_norm=False)

    def forward(self, object_: Tensor, residual: Tensor) -> Tensor:
        gamma = self.gamma(object_)
        x = gamma * object_ + (1 - gamma) * residual
        return x - self.epsilon(x) * self.layers(x)


class LightOEM(nn.Module):
    """Object step of L-RPCANet.

        O = x - epsilon * final(SE(g(x))),   x = O' + D' - B - N'
        g = Conv1x1(1->c) ReLU, 6 x [Conv(c->c) ReLU], Conv(c->C),   final = Conv(C->1)

    epsilon is a learned step size, 0.01 at first; SE is `SqueezeExcitation`.

    Shapes: x and O are (batch, 1, height, width).

    Source: L-RPCANet, its object extraction module.

    >>> LightOEM(channels=16, narrow=4)(torch.rand(2, 1, 16, 20)).shape
    torch.Size([2, 1, 16, 20])
    """

    def __init__(self, channels: int = 32, narrow: int = 16) -> None:
        super().__init__()
        self.epsilon = nn.Parameter(torch.tensor([0.01]))
        layers = rectified_convs(conv1x1(1, narrow), hidden=6, batch_norm=False)
        self.layers = AttentiveStack([*layers, conv3x3(narrow, channels)], channels)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.epsilon * self.layers(x)
