"""DynamicGate: a number in (0, 1) for each picture, which weighs one estimate against another."""

from torch import nn

from .layers import conv1x1

HIDDEN = 3


class DynamicGate(nn.Sequential):
    """A step size or a mixing weight that follows from the picture.

        gate(x) = sigmoid(Conv1x1(3->1)(ReLU(Conv1x1(1->3)(mean of x over the picture))))

    Shapes: x is (batch, 1, height, width), gate(x) is (batch, 1, 1, 1).

    Source: Xiong et al., "DRPCA-Net", TGRS 2025, the dynamic parameters of its object step.

    >>> import torch
    >>> DynamicGate()(torch.rand(2, 1, 16, 20)).shape
    torch.Size([2, 1, 1, 1])
    """

    def __init__(self) -> None:
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            conv1x1(1, HIDDEN),
            nn.ReLU(inplace=True),
            conv1x1(HIDDEN, 1),
            nn.Sigmoid(),
        )
