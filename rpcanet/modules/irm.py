"""IRM, the image restoration module: puts background and objects together again."""

from torch import Tensor, nn

from .layers import conv_stack


class IRM(nn.Module):
    """Restoration step of both networks.

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
