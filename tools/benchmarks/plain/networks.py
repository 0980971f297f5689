"""The published networks layer by layer: the baseline that the benchmark measures against.

One `nn.Conv2d`, `nn.BatchNorm2d` or `nn.ReLU` call for each of the equations, a convolution for each gate, the
17x17 window as it stands, and the published layout of the state dict, so that

    rpcanet.from_published(plain("rpcanet++", stages).state_dict())

is the same network in the product's form.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfoldkit.tools.benchmarks.plain.family import PlainDRPCAStage, PlainLRPCAStage
from unfoldkit.tools.benchmarks.plain.layers import conv, stack

Memory = tuple[Tensor, Tensor]


def plain(name: str, stages: int, channels: int = 32, **sizes: int) -> nn.Module:
    """The network `name` as `rpcanet.build` calls it, with Xavier-normal weights.

    sizes: narrow and noise_layers of an L-RPCANet.
    """
    stage_of = {
        "rpcanet": lambda k: PlainStage(channels, plus_plus=False, first=k == 0),
        "rpcanet++": lambda k: PlainStage(channels, plus_plus=True, first=k == 0),
        "drpca_net": lambda k: PlainDRPCAStage(channels),
        "l_rpcanet": lambda k: PlainLRPCAStage(channels, **sizes),
    }[name]
    net = PlainNetwork([stage_of(k) for k in range(stages)])
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight)
    return net


class PlainNetwork(nn.Module):
    def __init__(self, stages: Sequence[nn.Module]) -> None:
        super().__init__()
        self.decos = nn.ModuleList(stages)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """B_K, O_K, D_K of an image (batch, 1, height, width)."""
        restoration, object_, memory = image, torch.zeros_like(image), None
        for stage in self.decos:
            background, object_, restoration, memory = stage(restoration, object_, memory)
        return background, object_, restoration


class PlainStage(nn.Module):
    def __init__(self, channels: int, plus_plus: bool, first: bool) -> None:
        super().__init__()
        self.lowrank = PlainMemoryBAM(channels, first) if plus_plus else PlainBAM(channels)
        self.sparse = PlainOEM(channels, plus_plus)
        self.merge = PlainIRM(channels)

    def forward(
        self, restoration: Tensor, object_: Tensor, memory: Memory | None
    ) -> tuple[Tensor, Tensor, Tensor, Memory | None]:
        background, memory = self.lowrank(restoration - object_, memory)
        object_ = self.sparse(object_ + restoration - background)
        return background, object_, self.merge(background + object_), memory


class PlainBAM(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convs = stack(channels, hidden=3, batch_norm=True)

    def forward(self, x: Tensor, memory: None) -> tuple[Tensor, None]:
        return x + self.convs(x), None


class PlainMemoryBAM(nn.Module):
    def __init__(self, channels: int, first: bool) -> None:
        super().__init__()
        self.conv1_C = nn.Sequential(conv(1, channels), nn.BatchNorm2d(channels), nn.ReLU())
        self.RB_1, self.RB_2 = PlainResidual(channels), PlainResidual(channels)
        self.ConvLSTM = PlainFirstLSTM(channels) if first else PlainLSTM(channels)
        self.convC_1 = conv(channels, 1)

    def forward(self, x: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        hidden, cell = self.ConvLSTM(self.RB_1(self.conv1_C(x)), memory)
        return x + self.convC_1(self.RB_2(hidden)), (hidden, cell)


class PlainResidual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels), conv(channels, channels)

    def forward(self, z: Tensor) -> Tensor:
        return z + self.conv2(F.relu(self.conv1(z)))


class PlainFirstLSTM(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_xi, self.conv_xo, self.conv_xj = (conv(channels, channels) for _ in range(3))

    def forward(self, z: Tensor, memory: None) -> Memory:
        i, o = torch.sigmoid(self.conv_xi(z)), torch.sigmoid(self.conv_xo(z))
        cell = i * torch.tanh(self.conv_xj(z))
        return o * cell, cell


class PlainLSTM(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_xf, self.conv_xi, self.conv_xo, self.conv_xj = (conv(channels, channels) for _ in range(4))
        self.conv_hf, self.conv_hi, self.conv_ho, self.conv_hj = (conv(channels, channels) for _ in range(4))

    def forward(self, z: Tensor, memory: Memory) -> Memory:
        hidden, cell = memory
        f = torch.sigmoid(self.conv_xf(z) + self.conv_hf(hidden))
        i = torch.sigmoid(self.conv_xi(z) + self.conv_hi(hidden))
        o = torch.sigmoid(self.conv_xo(z) + self.conv_ho(hidden))
        j = torch.tanh(self.conv_xj(z) + self.conv_hj(hidden))
        cell = f * cell + i * j
        return o * torch.tanh(cell), cell


class PlainOEM(nn.Module):
    def __init__(self, channels: int, contrast_prior: bool) -> None:
        super().__init__()
        self.epsilon = nn.Parameter(torch.tensor([0.01]))
        self.convs = stack(channels, hidden=6, batch_norm=False)
        self.contrast = plain_prior(channels) if contrast_prior else None

    def forward(self, x: Tensor) -> Tensor:
        guided = x if self.contrast is None else x + self.contrast(x)
        return x - self.epsilon * self.convs(guided)


def plain_prior(channels: int) -> nn.Sequential:
    return nn.Sequential(
        conv(1, channels),
        nn.ReLU(),
        PlainContrast(channels),
        nn.BatchNorm2d(channels),
        nn.LeakyReLU(0.1),
        conv(channels, 1),
    )


class PlainContrast(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=17, padding=8, bias=False)
        self.attn = PlainGate(channels)

    def forward(self, z: Tensor) -> Tensor:
        centre = F.conv2d(z, self.conv.weight.sum((2, 3), keepdim=True))
        return self.attn(z) * centre - self.conv(z)


class PlainGate(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.avg_channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // 4, kernel_size=1),
            nn.BatchNorm2d(channels // 4),
            nn.ReLU(),
            nn.Conv2d(channels // 4, channels, kernel_size=1),
            nn.BatchNorm2d(channels),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.avg_channel(z)


class PlainIRM(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mapping = stack(channels, hidden=3, batch_norm=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.mapping(x)
