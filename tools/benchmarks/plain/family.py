"""Stages of DRPCA-Net and L-RPCANet layer by layer, in the published layout of their state dicts."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfoldkit.tools.benchmarks.plain.layers import conv, conv1x1, rectified, stack


class PlainDRPCAStage(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lowrank = PlainBackground(channels)
        self.sparse = PlainGatedObject(channels)
        self.merge = PlainResidualRestoration(channels)

    def forward(
        self, restoration: Tensor, object_: Tensor, memory: None
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        background = self.lowrank(restoration - object_)
        object_ = self.sparse(restoration, object_, background)
        return background, object_, self.merge(background + object_), None


class PlainBackground(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = stack(channels, hidden=3, batch_norm=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convs(x)


class PlainGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), conv1x1(1, 3), nn.ReLU(), conv1x1(3, 1), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z)


class PlainGatedObject(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma_generator, self.epsilon_generator = PlainGate(), PlainGate()
        self.convs = stack(channels, hidden=6, batch_norm=False)

    def forward(self, restoration: Tensor, object_: Tensor, background: Tensor) -> Tensor:
        gamma = self.gamma_generator(object_)
        x = gamma * object_ + (1 - gamma) * (restoration - background)
        return x - self.epsilon_generator(x) * self.convs(x)


class PlainChannelAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = max(1, channels // 16)
        self.fc = nn.Sequential(conv1x1(channels, inside), nn.ReLU(), conv1x1(inside, channels))

    def forward(self, z: Tensor) -> Tensor:
        pooled = self.fc(F.adaptive_avg_pool2d(z, 1)) + self.fc(F.adaptive_max_pool2d(z, 1))
        return z * torch.sigmoid(pooled)


class PlainSpatialAttention(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.kernel_generator = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), conv1x1(channels, channels), nn.ReLU(), conv1x1(channels, 9)
        )

    def forward(self, z: Tensor) -> Tensor:
        batch = len(z)
        windows = self.kernel_generator(z).view(batch, 1, 3, 3)
        planes = z.mean(1).unsqueeze(0)
        response = F.conv2d(planes, windows, padding=1, groups=batch)
        return z * torch.sigmoid(response.transpose(0, 1))


class PlainBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, channels),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(0.2),
            conv(channels, channels),
            nn.BatchNorm2d(channels),
            PlainChannelAttention(channels),
            PlainSpatialAttention(channels),
        )

    def forward(self, z: Tensor) -> Tensor:
        return z + self.body(z)


class PlainGroup(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(PlainBlock(channels) for _ in range(5)), conv(channels, channels))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.body(z)


class PlainResidualRestoration(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mapping = nn.Sequential(
            conv1x1(1, channels),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(0.2),
            PlainGroup(channels),
            conv1x1(channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.mapping(x)


class PlainLRPCAStage(nn.Module):
    """As published: every stage starts from no noise."""

    def __init__(self, channels: int, narrow: int = 16, noise_layers: int = 6) -> None:
        super().__init__()
        self.lowrank = PlainLightBackground(channels, narrow)
        self.sparse = PlainLightObject(channels, narrow)
        self.residual = PlainNoise(channels, narrow, noise_layers)
        self.merge = PlainLightRestoration(channels)

    def forward(
        self, restoration: Tensor, object_: Tensor, memory: None
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        background = self.lowrank(restoration - object_)
        object_ = self.sparse(object_ + restoration - background)
        noise = self.residual(restoration - background - object_)
        return background, object_, self.merge(background + object_ + noise), None


class PlainExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        inside = max(1, channels // 16)
        self.excitation = nn.Sequential(
            conv1x1(channels, inside), nn.ReLU(), conv1x1(inside, channels), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> Tensor:
        return z * self.excitation(F.adaptive_avg_pool2d(z, 1))


class PlainLightBackground(nn.Module):
    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        layers = rectified(conv1x1(1, narrow), hidden=3, batch_norm=True)
        self.convs = nn.Sequential(*layers, conv(narrow, channels))
        self.channel_attention = PlainExcitation(channels)
        self.final_conv = conv(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.final_conv(self.channel_attention(self.convs(x)))


class PlainLightObject(nn.Module):
    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.epsilon = nn.Parameter(torch.tensor([0.01]))
        layers = rectified(conv1x1(1, narrow), hidden=6, batch_norm=False)
        self.convs = nn.Sequential(*layers, conv(narrow, channels))
        self.channel_attention = PlainExcitation(channels)
        self.final_conv = conv(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.epsilon * self.final_conv(self.channel_attention(self.convs(x)))


class PlainNoise(nn.Module):
    def __init__(self, channels: int, narrow: int, noise_layers: int) -> None:
        super().__init__()
        self.sigma = nn.Parameter(torch.tensor([0.01]))
        layers = rectified(conv(1, narrow), noise_layers, batch_norm=False)
        self.convs = nn.Sequential(*layers, conv(narrow, channels))
        self.channel_attention = PlainExcitation(channels)
        self.final_conv = conv(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x - self.sigma * self.final_conv(self.channel_attention(self.convs(x)))


class PlainLightRestoration(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mapping = nn.Sequential(*rectified(conv(1, channels), hidden=3, batch_norm=True))
        self.channel_attention = PlainExcitation(channels)
        self.final_conv = conv(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.final_conv(self.channel_attention(self.mapping(x)))
