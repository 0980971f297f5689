"""OEM, the object extraction module: a learned proximal gradient step towards sparse objects."""

import torch
from torch import Tensor, nn

from .dcpm import DCPM
from .layers import conv_stack


class OEM(nn.Module):
    """Object step of both networks.

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
