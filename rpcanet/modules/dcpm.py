"""DCPM, the deep contrast prior module: where a picture stands out from its surroundings."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from ...kernels import conv_spectrum, fused, large_kernel_conv2d
from .layers import BatchNorm, Stack, conv1x1, conv3x3, require_several

WINDOW = 17


class ChannelGate(nn.Sequential):
    """theta(z): one weight in (0, 1) a channel, (batch, C, height, width) -> (batch, C, 1, 1).

    Global average pool, Conv1x1(C -> C/4), BN, ReLU, Conv1x1(C/4 -> C), BN, sigmoid.

    Raises ValueError in training on a batch of one picture, of which the pool leaves one value a channel.
    """

    def __init__(self, channels: int) -> None:
        squeezed = channels // 4
        super().__init__(
            nn.AdaptiveAvgPool2d(1),
            conv1x1(channels, squeezed),
            nn.BatchNorm2d(squeezed),
            nn.ReLU(inplace=True),
            conv1x1(squeezed, channels),
            nn.BatchNorm2d(channels),
            nn.Sigmoid(),
        )

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            require_several(input[..., :1, :1])
        return super().forward(input)


class CentralContrast(nn.Module):
    """A centre's gated response minus its window's.

        contrast(z) = theta(z) * centre(z) - conv(z)

    conv is a 17x17 convolution C -> C without bias, zero padding 8; centre is the 1x1 convolution whose
    weight is that kernel summed over its window; theta is a `ChannelGate`. With theta = 1 a constant
    picture answers zero away from its border.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, WINDOW, WINDOW))
        nn.init.xavier_normal_(self.weight)
        self.gate = ChannelGate(channels)

    def forward(self, z: Tensor) -> Tensor:
        if self.training and fused.serves(z, z.shape[1]):
            centre = F.linear(z.permute(0, 2, 3, 1), self.weight.sum(dim=(2, 3))).permute(0, 3, 1, 2)
            return fused.gated(self.gate(fused.mean(z)), centre, fused.window(z, self.weight))
        centre = F.conv2d(z, self.weight.sum(dim=(2, 3), keepdim=True))
        surround = large_kernel_conv2d(z, self.weight)
        return self.gate(z) * centre - surround


class FoldedWindow(nn.Module):
    """A window's convolution in inference, whose spectrum is computed once."""

    spectrum: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.register_buffer("spectrum", conv_spectrum(weight))

    def forward(self, z: Tensor) -> Tensor:
        return large_kernel_conv2d(z, self.weight, self.bias, spectrum=self.spectrum)


class FoldedContrast(nn.Module):
    """BN(contrast(z)) in inference, where BN is a fixed scale a and shift b.

        a contrast(z) + b = theta(z) * centre(z) + surround(z)

    gate: theta.  centre: (C, C, 1, 1), times a.  surround: the window times -a, with bias b.
    """

    def __init__(self, gate: nn.Module, centre: Tensor, surround: nn.Module) -> None:
        super().__init__()
        self.gate, self.surround = gate, surround
        self.centre = nn.Parameter(centre)

    def forward(self, z: Tensor) -> Tensor:
        return torch.addcmul(self.surround(z), self.gate(z), F.conv2d(z, self.centre))


def folded_window(contrast: CentralContrast, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The window times the norm's scale, and the norm's shift."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, shift = fuse_conv_bn_weights(
        contrast.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return weight.detach(), shift.detach()


class DCPM(nn.Module):
    """The contrast prior that guides the object step.

        w(x) = Conv(C->1)(LeakyReLU_0.1(BN(contrast(ReLU(Conv(1->C)(x))))))

    Shapes: x and w are (batch, 1, height, width).

    Source: Wu et al., "RPCANet++", arXiv 2508.04190, section III-C.

    >>> DCPM(channels=8).eval()(torch.rand(2, 1, 16, 20)).shape
    torch.Size([2, 1, 16, 20])
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.embedding = Stack(conv3x3(1, channels), nn.ReLU(inplace=True))
        self.contrast = CentralContrast(channels)
        self.projection = Stack(BatchNorm(channels), nn.LeakyReLU(0.1, inplace=True), conv3x3(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.contrast(self.embedding(x)))
