"""ResidualGroup: residual blocks with attention over channels and over the picture."""

from torch import Tensor, nn

from .channel_attention import ChannelAttention
from .layers import BatchNorm, conv3x3
from .spatial_attention import DynamicSpatialAttention

BLOCKS = 5
SLOPE = 0.2


class AttentiveBlock(nn.Module):
    """z + S(A(BN(Conv(LeakyReLU_0.2(BN(Conv(z))))))), C channels throughout.

    A is `ChannelAttention`, S `DynamicSpatialAttention`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv3x3(channels, channels),
            BatchNorm(channels),
            nn.LeakyReLU(SLOPE, inplace=True),
            conv3x3(channels, channels),
            BatchNorm(channels),
            ChannelAttention(channels),
            DynamicSpatialAttention(channels),
        )

    def forward(self, z: Tensor) -> Tensor:
        return z + self.body(z)


class FusedAttention(nn.Module):
    """S(A(z)) in inference, in the memory of z.

    What S asks of A(z) = a z follows from z: its averages over the picture are a avg(z), its mean over channels is
    a product of a / C and z.
    """

    def __init__(self, channel: ChannelAttention, spatial: DynamicSpatialAttention) -> None:
        super().__init__()
        self.channel, self.spatial = channel, spatial

    def forward(self, z: Tensor) -> Tensor:
        average = z.mean((2, 3), keepdim=True)
        a = self.channel.weights(average, z.amax((2, 3), keepdim=True))
        mean = (z.permute(0, 2, 3, 1).flatten(1, 2) @ (a / z.shape[1]).flatten(2)).view(-1, 1, *z.shape[2:])
        return z.mul_(a).mul_(self.spatial.weights(a * average, mean))


class ResidualGroup(nn.Module):
    """Features refined around a shortcut.

        group(z) = z + Conv3x3(block_5(... block_1(z)))
        block(z) = z + S(A(BN(Conv3x3(LeakyReLU_0.2(BN(Conv3x3(z)))))))

    A is `ChannelAttention`, S `DynamicSpatialAttention`.

    Shapes: z and group(z) are (batch, C, height, width).

    Source: Xiong et al., "DRPCA-Net", TGRS 2025, its dynamic residual group.

    >>> import torch
    >>> ResidualGroup(8)(torch.rand(2, 8, 16, 20)).shape
    torch.Size([2, 8, 16, 20])
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        blocks = [AttentiveBlock(channels) for _ in range(BLOCKS)]
        self.body = nn.Sequential(*blocks, conv3x3(channels, channels))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.body(z)
