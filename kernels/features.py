"""Blocks of unfolded networks in inference, in 16 bits: features stay on chip, planes stay float32.

Features are float16 and hold a network's features times `SCALE`. Tensor cores multiply float16 as fast as
bfloat16, and it keeps three more bits: bfloat16 moved the IoU of RPCANet++'s three stages on SIRST, whose objects
have 3,800 pixels, by half a point, float16 by .03 (`evaluate.py --precision bfloat16 --device cuda`, H100). What
float16 lacks is range, hence the scale, a power of two: features up to two million. Beyond it planes are infinite
or NaN, which no rectifier takes for a number.

Each is a module that holds its weights as its kernel takes them. Without a GPU of compute capability 8, or with
other than 8, 16, 32 or 64 channels, the same layers run one by one. A tensor core's product takes 16 channels at
a time: of 8, half are zeros on chip, and yet kernels take an eighth to a third of the layers' time.

Layers 64 -> 64, and the LSTM's convolution of 64 channels, are the library's, which is faster: 0.10 ms for 8
pictures of 256x256 on an H100, with the rectifier, where a kernel like that of 32 channels took 0.16, since its
weights of 72 KiB and its tile leave room for one block a multiprocessor. What stands around them stays in kernels:
from a plane to a plane through one such layer takes 0.17 ms instead of 0.79, the window 2.7 instead of 3.2.
"""

from collections.abc import Sequence
from functools import reduce
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import large_kernel_conv2d
from .dispatch.operator import library_only
from .gpu.features import packing
from .gpu.features.packing import CHANNELS
from .same_conv import same_conv2d

Planes = tuple[tuple[float, Tensor], ...]
DTYPE = torch.float16
SCALE = 1 / 32


def total(planes: Planes) -> Tensor:
    """The sum of planes, each times its factor."""
    return torch.stack([factor * plane for factor, plane in planes]).sum(0)


class ConvChain(nn.Module):
    """A run of 3x3 convolutions C -> C, of a plane or of features, to a plane or to features.

        z = relu(conv(plane)) where the first weight has one input channel, else the features given;
        z <- relu(conv(z)) for each weight C -> C, the last one without its rectifier where `residual` is set:
        z <- start + conv(z);  at the end conv(z) + added, a plane, where the last weight has one output channel.

    A plane given, and what is added, is a sum of up to four float32 planes (batch, 1, height, width), each with a
    factor: ((1.0, D), (-1.0, O)). Features are float16, (batch, C, height, width), channels-last, and hold `SCALE`
    times z. Products take float16 numbers and sum in float32; between layers features are rounded to float16.

    On a GPU one kernel computes at most two layers C -> C at once, with what leads to them and from them; layers
    64 -> 64 the library computes, and kernels what leads to them and from them.

    Raises ValueError for weights that make no such run.

    Source: Alwani et al., "Fused-layer CNN accelerators", MICRO 2016.

    >>> chain = ConvChain([nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 1, 3)])
    >>> image = torch.rand(2, 1, 20, 30)
    >>> chain(((1.0, image),), added=((0.5, image),)).shape
    torch.Size([2, 1, 20, 30])
    """

    def __init__(self, convs: Sequence[nn.Conv2d], *, residual: bool = False) -> None:
        super().__init__()
        weights = [conv.weight.detach() for conv in convs]
        self.from_plane, self.to_plane = weights[0].shape[1] == 1, weights[-1].shape[0] == 1
        between = weights[self.from_plane : len(weights) - self.to_plane]
        self.channels, self.layers = int(max(weights[0].shape[:2])), len(between)
        square = (self.channels, self.channels, 3, 3)
        if (
            any(weight.shape != square for weight in between)
            or (not between and (residual or (self.from_plane and self.to_plane)))
            or len(between) > 2
        ):
            shapes = ", ".join(str(tuple(weight.shape)) for weight in weights)
            raise ValueError(
                "convs must lead from 1 or C channels to C or 1 by at most two C -> C, from 1 to 1 by one "
                f"or two, got {shapes}"
            )
        self.residual = residual
        zeros = [weight.new_zeros(len(weight)) for weight in weights]
        biases = [
            zero if conv.bias is None else conv.bias.detach() for conv, zero in zip(convs, zeros, strict=True)
        ]
        to_features = len(convs) - self.to_plane
        biases[:to_features] = [SCALE * bias for bias in biases[:to_features]]
        weights[to_features:] = [weight / SCALE for weight in weights[to_features:]]
        served = self.channels in CHANNELS
        self.packed = _constant(self._packed(weights) if served else weights[0][:0])
        self.biases = _constant(torch.cat(biases).float())
        wide = [packing.widened(bias, self.channels) for bias in biases] if served else [weights[0][:0]]
        self.packed_biases = _constant(torch.cat(wide).float())
        for i, weight in enumerate(weights):
            setattr(self, f"weight{i}", _constant(weight.to(DTYPE)))
        apart, plane = self.layers > packing.at_once(self.channels), self.from_plane or self.to_plane
        self.by_library = apart and not plane
        self.parts = nn.ModuleList(self._parts(convs) if apart and plane else ())

    def forward(self, source: Tensor | Planes, added: Planes = ()) -> Tensor:
        features = [source] if isinstance(source, Tensor) else [plane for _, plane in source]
        if self.by_library or not _on_chip([*features, *(plane for _, plane in added)], self.channels):
            return self._layer_by_layer(source, added)
        if self.parts:
            *before, last = self.parts
            return last(reduce(lambda x, part: part(x), before, source), added)
        from .gpu.features import launches

        keeps = self.layers - self.residual
        spec = launches.Chain(
            self.channels, self.layers, self.from_plane, self.to_plane, (1 << keeps) - 1, self.residual
        )
        given = _dense(source) if isinstance(source, Tensor) else _scaled(source)
        return launches.run_chain(spec, given, self.packed, self.packed_biases, _contiguous(added)).result

    def _parts(self, convs: Sequence[nn.Conv2d]) -> list["ConvChain"]:
        """What leads from a plane, the layers between, and what leads to a plane."""
        end = len(convs) - self.to_plane
        between = ConvChain(convs[self.from_plane : end], residual=self.residual)
        first = [ConvChain(convs[:1])] if self.from_plane else []
        return [*first, between, *([ConvChain(convs[end:])] if self.to_plane else [])]

    def _packed(self, weights: list[Tensor]) -> Tensor:
        weights = [packing.widened(weight, self.channels) for weight in weights]
        between = weights[self.from_plane : len(weights) - self.to_plane]
        first = [packing.embedding(weights[0])] if self.from_plane else []
        last = [packing.projection(weights[-1])] if self.to_plane else []
        return torch.cat([*first, *(packing.packed(packing.taps_of(weight)) for weight in between), *last])

    def _layer_by_layer(self, source: Tensor | Planes, added: Planes) -> Tensor:
        count = self.from_plane + self.layers + self.to_plane
        weights = [getattr(self, f"weight{i}") for i in range(count)]
        biases = self.biases.split([len(weight) for weight in weights])
        x = source if isinstance(source, Tensor) else (SCALE * total(source)).to(DTYPE)
        start, end = x, self.from_plane + self.layers
        for i in range(end):
            unrectified = self.residual and i == end - 1
            x = same_conv2d(x, weights[i], biases[i].to(DTYPE), relu=not unrectified)
            start = x if self.from_plane and i == 0 else start
            x = x + start if unrectified else x
        if not self.to_plane:
            return x
        plane = same_conv2d(x.float(), weights[-1].float(), biases[-1])
        return plane + total(added) if added else plane


class ContrastWindow(nn.Module):
    """The gated centre minus its surroundings, of a plane's features, with what stands before and after it:

        z = relu(conv(plane));  theta = sigmoid(B relu(A mean(z) + a) + b), one number a picture and channel
        y = leaky(shift + theta * centre z + window(z)),  leaky(v) = max(v, slope v)

    Args:
        embedding: conv, 1 -> C, 3x3.
        window: (C, C, 17, 17); centre: (C, C); shift: (C,).
        squeeze: A (c, C), a (c,), B (C, c), b (C,).

    The plane is a sum as in `ConvChain`; features, sums and rounding are as there.

    >>> embedding = nn.Conv2d(1, 4, 3)
    >>> squeeze = torch.ones(1, 4), torch.ones(1), torch.ones(4, 1), torch.ones(4)
    >>> prior = ContrastWindow(embedding, torch.zeros(4, 4, 17, 17), torch.eye(4), torch.zeros(4), squeeze, 0.1)
    >>> prior(((1.0, torch.rand(2, 1, 20, 30)),)).shape
    torch.Size([2, 4, 20, 30])
    """

    def __init__(
        self,
        embedding: nn.Conv2d,
        window: Tensor,
        centre: Tensor,
        shift: Tensor,
        squeeze: tuple[Tensor, ...],
        slope: float,
    ) -> None:
        super().__init__()
        self.embedding, self.slope, self.channels = ConvChain([embedding]), slope, len(window)
        self.window, self.centre = _constant(window.to(DTYPE)), _constant(centre.to(DTYPE))
        self.shift = _constant(SCALE * shift.float())
        A, *others = squeeze
        self.squeeze = nn.ParameterList([_constant(x.float().contiguous()) for x in (A / SCALE, *others)])
        if self.channels not in CHANNELS:
            return
        wide = [packing.widened(x, self.channels) for x in (window, centre, self.shift, *self.squeeze)]
        self.packed_window = _constant(packing.packed(packing.taps_of(wide[0])))
        self.packed_centre = _constant(packing.packed(wide[1].T[None]))
        self.packed_shift = _constant(wide[2])
        self.packed_squeeze = nn.ParameterList(map(_constant, wide[3:]))

    def forward(self, planes: Planes) -> Tensor:
        like = planes[0][1]
        if not _on_chip([plane for _, plane in planes], self.channels, "window"):
            return self._layer_by_layer(planes)
        from .gpu.features import launches

        spec = launches.Chain(self.channels, 0, True, False, 0, pooled=True)
        chain = self.embedding
        z, pooled, _ = launches.run_chain(spec, _scaled(planes), chain.packed, chain.packed_biases)
        theta = launches.run_gate(pooled, like.shape[2] * like.shape[3], tuple(self.packed_squeeze))
        weights = (self.packed_window, self.packed_centre, self.packed_shift)
        return launches.run_window(z, weights, theta, self.slope)

    def _layer_by_layer(self, planes: Planes) -> Tensor:
        A, a, B, b = self.squeeze
        z = self.embedding(planes)
        theta = F.linear(F.linear(z.mean((2, 3)).float(), A, a).relu(), B, b).sigmoid()[:, :, None, None]
        surround = large_kernel_conv2d(z, self.window, self.shift.to(DTYPE))
        y = torch.addcmul(surround, theta.to(DTYPE), F.conv2d(z, self.centre[:, :, None, None]))
        return F.leaky_relu(y, self.slope)


class LSTMStep(nn.Module):
    """A step of a convolutional LSTM, from features z and the memory (h', c') to (h, c).

        f, i, o, j = 3x3 convolutions of (z, h');  c = sigmoid(f) c' + sigmoid(i) tanh(j);  h = sigmoid(o) tanh(c)
        without memory:  i, o, j = convolutions of z;  c = sigmoid(i) tanh(j);  h = sigmoid(o) c

    weight: (4 C, 2 C, 3, 3), or (3 C, C, 3, 3) of the step without memory; bias: (4 C,) or (3 C,).

    Features, sums and rounding are as in `ConvChain`, of z, h and c. tanh is the GPU's, with a relative
    error of 2^-11.

    >>> z = torch.rand(2, 4, 20, 30).half()
    >>> h, c = LSTMStep(torch.rand(12, 4, 3, 3), torch.zeros(12))(z, None)
    >>> h.shape
    torch.Size([2, 4, 20, 30])
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.first = weight.shape[1] * 3 == len(weight)
        self.count = 3 if self.first else 4
        self.channels = len(weight) // self.count
        weight = weight / SCALE
        self.weight = _constant(weight.to(DTYPE))
        self.bias = _constant(bias.float())
        if self.channels in CHANNELS:
            self.packed = _constant(packing.gates(weight, self.count))
            biases = [packing.widened(part, self.channels) for part in self.bias.split(self.channels)]
            self.packed_bias = _constant(torch.cat(biases))

    def forward(self, z: Tensor, memory: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        if self.first != (memory is None):
            raise ValueError("the first step runs without memory, every other one with it")
        given = [z, *(memory or ())]
        if not _on_chip(given, self.channels, "first gates" if self.first else "gates"):
            apart = _on_chip(given, self.channels) and find_spec("triton") is not None
            return self._apart(z, memory) if apart else self._layer_by_layer(z, memory)
        from .gpu.features import launches

        before = None if memory is None else (_dense(memory[0]), _dense(memory[1]))
        return launches.run_gates(_dense(z), before, self.packed, self.packed_bias, SCALE)

    def _apart(self, z: Tensor, memory: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """The convolution by the library, everything behind it in one kernel."""
        from .gpu.lstm import lstm

        given = z if memory is None else torch.cat((z, memory[0]), dim=1)
        gates = _dense(same_conv2d(_dense(given), self.weight))
        hidden, cell = lstm(gates, self.bias, None if memory is None else _dense(memory[1] / SCALE))
        return SCALE * hidden, SCALE * cell

    def _layer_by_layer(self, z: Tensor, memory: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        given = z if memory is None else torch.cat((z, memory[0]), dim=1)
        *forget, i, o, j = same_conv2d(given, self.weight, self.bias.to(DTYPE)).chunk(self.count, dim=1)
        cell = SCALE * i.sigmoid() * j.tanh()
        if memory is None:
            return o.sigmoid() * cell, cell
        cell = torch.addcmul(cell, forget[0].sigmoid(), memory[1])
        return SCALE * o.sigmoid() * (cell / SCALE).tanh(), cell


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach(), requires_grad=False)


def _on_chip(tensors: Sequence[Tensor], channels: int, what: str = "chain") -> bool:
    """Whether there is a kernel, which keeps nothing for gradients; without its compiler a warning comes once."""
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    if wanted or library_only(tensors[0]) or not tensors[0].is_cuda:
        return False
    from .gpu.features import launches

    device = tensors[0].device
    if what == "window":
        return launches.serves_window(device, channels)
    if what.endswith("gates"):
        return launches.serves_gates(device, channels, what.startswith("first"))
    return launches.serves(device, channels)


def _dense(features: Tensor) -> Tensor:
    return features.contiguous(memory_format=torch.channels_last)


def _scaled(planes: Planes) -> Planes:
    return tuple((SCALE * factor, plane) for factor, plane in _contiguous(planes))


def _contiguous(planes: Planes) -> Planes:
    return tuple((factor, plane.contiguous()) for factor, plane in planes)
