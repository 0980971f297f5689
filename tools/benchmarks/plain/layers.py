"""What the layer-by-layer networks are made of."""

from torch import nn


def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=1)


def rectified(first: nn.Conv2d, hidden: int, batch_norm: bool) -> list[nn.Module]:
    """`first` and `hidden` 3x3 convolutions, a ReLU after each, with batch norm before it if asked for."""
    channels = first.out_channels
    layers: list[nn.Module] = []
    for convolution in [first, *(conv(channels, channels) for _ in range(hidden))]:
        layers.append(convolution)
        if batch_norm:
            layers.append(nn.BatchNorm2d(channels))
        layers.append(nn.ReLU())
    return layers


def stack(channels: int, hidden: int, batch_norm: bool) -> nn.Sequential:
    return nn.Sequential(*rectified(conv(1, channels), hidden, batch_norm), conv(channels, 1))
