"""MAM, the memory-augmented module: residual blocks around a convolutional LSTM that runs over stages."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...kernels import fused, same_conv2d
from .layers import Conv3x3, conv3x3


class Memory(NamedTuple):
    """State of the convolutional LSTM, handed from stage to stage; each (batch, C, height, width)."""

    hidden: Tensor
    cell: Tensor


class ResidualBlock(nn.Module):
    """z + Conv(ReLU(Conv(z))), C channels throughout."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, z: Tensor) -> Tensor:
        first, second = self.conv1, self.conv2
        if fused.serves(z, z.shape[1]) and first.bias is not None and second.bias is not None:
            return fused.conv_run(z, [first.weight, second.weight], [first.bias, second.bias], residual=True)
        return second(self.relu(first(z))) + z


def gate_convs(channels: int, gates: int) -> Conv3x3:
    """The C -> C convolutions of several gates side by side in one; Xavier-normal weights gate by gate."""
    conv = Conv3x3(channels, gates * channels)
    for weight in conv.weight.detach().split(channels):
        nn.init.xavier_normal_(weight)
    return conv


def _split(gates: Tensor, count: int) -> Iterator[Tensor]:
    """The gates one by one, each dense in memory: elementwise steps then run at full speed."""
    return (gate.contiguous(memory_format=torch.channels_last) for gate in gates.chunk(count, dim=1))


def _fused_gates(features: Tensor, weight: Tensor, bias: Tensor | None, cell: Tensor | None) -> Memory:
    assert bias is not None
    return Memory(*fused.lstm(same_conv2d(features, weight), bias, cell))


class FirstConvLSTM(nn.Module):
    """The convolutional LSTM of the first stage, where there is no memory yet.

        i, o = sigmoid(conv_x(z)),  j = tanh(conv_x(z)),  c = i * j,  h = o * c

    `gates_x` holds the gates' convolutions along its output channels in the order i, o, j.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates_x = gate_convs(channels, gates=3)

    def forward(self, z: Tensor, memory: Memory | None) -> Memory:
        if fused.serves(z, z.shape[1]):
            return _fused_gates(z, self.gates_x.weight, self.gates_x.bias, None)
        i, o, j = _split(self.gates_x(z), 3)
        cell = i.sigmoid() * j.tanh()
        return Memory(hidden=o.sigmoid() * cell, cell=cell)


class ConvLSTM(nn.Module):
    """The convolutional LSTM of every later stage.

        f, i, o = sigmoid(conv_x(z) + conv_h(h')),  j = tanh(conv_x(z) + conv_h(h'))
        c = f * c' + i * j,  h = o * tanh(c)          with (h', c') the memory of the stage before

    `gates_x` and `gates_h` hold the gates' convolutions along their output channels in the order f, i, o, j;
    both run as one convolution over z and h' side by side.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates_x = gate_convs(channels, gates=4)
        self.gates_h = gate_convs(channels, gates=4)

    def forward(self, z: Tensor, memory: Memory | None) -> Memory:
        if memory is None:
            raise ValueError("memory is None: only the first stage's module runs without one")
        x, h = self.gates_x, self.gates_h
        weight = torch.cat((x.weight, h.weight), dim=1)
        assert x.bias is not None
        assert h.bias is not None
        both = torch.cat((z, memory.hidden), dim=1)
        if fused.serves(z, z.shape[1]):
            return _fused_gates(both, weight, x.bias + h.bias, memory.cell)
        gates = same_conv2d(both, weight, x.bias + h.bias)
        f, i, o, j = _split(gates, 4)
        cell = torch.addcmul(f.sigmoid() * memory.cell, i.sigmoid(), j.tanh())
        return Memory(hidden=o.sigmoid() * cell.tanh(), cell=cell)


class MAM(nn.Module):
    """Features of this stage, refined with what the stages before it saw.

        (h, c) = ConvLSTM(RB1(z), (h', c')),   features = RB2(h),   RB(z) = z + Conv(ReLU(Conv(z)))

    Shapes: z and the features are (batch, C, height, width).

    Source: Wu et al., "RPCANet++", arXiv 2508.04190, section III-B.

    >>> features, memory = MAM(8, first=True)(torch.rand(2, 8, 16, 20), None)
    >>> features.shape
    torch.Size([2, 8, 16, 20])
    """

    def __init__(self, channels: int = 32, *, first: bool) -> None:
        super().__init__()
        self.rb1 = ResidualBlock(channels)
        self.lstm = FirstConvLSTM(channels) if first else ConvLSTM(channels)
        self.rb2 = ResidualBlock(channels)

    def forward(self, z: Tensor, memory: Memory | None) -> tuple[Tensor, Memory]:
        memory = self.lstm(self.rb1(z), memory)
        return self.rb2(memory.hidden), memory
