"""DynamicSpatialAttention: a map over the picture, from a window that the picture makes for itself."""

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import conv1x1

WINDOW = 3


class DynamicSpatialAttention(nn.Module):
    """Spatial attention with a window of its own for each picture.

        S(z) = z * sigmoid(k * mean of z over channels)
        k = Conv1x1(C->9)(ReLU(Conv1x1(C->C)(mean of z over the picture)))

    k, read as a 3x3 window row by row, is correlated with the mean: zero padding 1, no bias.

    Shapes: z and S(z) are (batch, C, height, width).

    Source: Xiong et al., "DRPCA-Net", TGRS 2025, its dynamic spatial attention.

    >>> import torch
    >>> DynamicSpatialAttention(8)(torch.rand(2, 8, 16, 20)).shape
    torch.Size([2, 8, 16, 20])
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.kernel_generator = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            conv1x1(channels, channels),
            nn.ReLU(inplace=True),
            conv1x1(channels, WINDOW**2),
        )

    def forward(self, z: Tensor) -> Tensor:
        return z * self.weights(z, z.mean(1, keepdim=True))

    def weights(self, z: Tensor, mean: Tensor) -> Tensor:
        """sigmoid(k * mean), (batch, 1, height, width), with k from z; mean is of that shape, too."""
        neighbours = F.unfold(mean, WINDOW, padding=WINDOW // 2)
        response = self.kernel_generator(z).flatten(2).mT @ neighbours
        return response.view_as(mean).sigmoid()
