"""The inference form of a network: the same function of a picture, several times faster."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ...kernels import Graphs, same_conv2d
from ..compression.thin import plain, thin_window
from ..modules import DCPM, ChannelAttention, DynamicGate, DynamicSpatialAttention, ResidualGroup
from ..modules.dcpm import FoldedContrast, FoldedWindow, folded_window
from ..modules.mam import ResidualBlock
from ..modules.residual_group import AttentiveBlock, FusedAttention
from ..networks.unfolding import Decomposition, Unfolding
from .on_chip import StageOnChip, on_chip

DTYPES = (torch.float32, torch.bfloat16)


def optimize(net: Unfolding, dtype: torch.dtype = torch.float32, compile: bool = False) -> "InferenceForm":
    """A copy of `net` that answers as `net` does in evaluation mode, only faster; it cannot be trained.

    Every batch norm is folded into the convolution before it, the contrast prior's window keeps its
    spectrum, and features are laid out channels-last.

    dtype: of the features. bfloat16 is far faster on GPUs and processors with matrix units for it; the planes
    D, B and O that pass from module to module stay float32. A network on a processor without such units (AMX)
    gets float32 features all the same: they are exact, and as fast by convolutions with a quarter of the
    multiplications as bfloat16 by vector instructions; where these too are missing it is emulated, hundreds of
    times slower.
    Asked for bfloat16 on a GPU of compute capability 8 or later, RPCANet and RPCANet++ of 8, 16, 32 or 64 channels
    run in a few kernels a stage, `kernels.ConvChain`, `LSTMStep` and `ContrastWindow`. These keep features in
    float16, scaled so that they may reach two million: as fast, and three bits more.
    compile: fuse the elementwise steps with `torch.compile`, one compilation for the first stage and one for
    all others; the first call at a new size takes minutes. Kernels as above it leaves alone.

    On a GPU the second call at a size records a CUDA graph of the whole network, which later ones replay without
    waiting for Python; `kernels.Graphs` says when. The eight sizes used last keep theirs.

    Raises ValueError for another dtype.

    >>> from unfoldkit.rpcanet import RPCANetPlusPlus
    >>> net, image = RPCANetPlusPlus(stages=2, channels=8).eval(), torch.rand(1, 1, 24, 30)
    >>> bool((optimize(net)(image).object - net(image).object).abs().max() < 1e-5)
    True
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be torch.float32 or torch.bfloat16, got {dtype}")
    device = next(net.parameters()).device
    features = feature_dtype(dtype, device)
    kernels = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    stages = _on_chip(net) if features == torch.bfloat16 and kernels else None
    stages = stages or [_layer_by_layer(deepcopy(stage).eval(), features) for stage in net.stages]
    fast = InferenceForm(stages, net.mean, net.std).eval().requires_grad_(False)
    fast = fast.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types
    if compile and not any(isinstance(stage, StageOnChip) for stage in fast.stages):
        fast.compile_stages()
    return fast


def feature_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What `optimize` computes features in when asked for `dtype`: float32 where a CPU has no unit for bfloat16.

    >>> feature_dtype(torch.bfloat16, torch.device("cuda"))
    torch.bfloat16
    """
    if device.type == "cpu" and not torch.cpu._is_amx_tile_supported():
        return torch.float32
    return dtype


class InferenceForm(Unfolding):
    """What `optimize` makes: its planes are float32, whatever its features are.

    On a GPU a size that has come before is answered by replaying a CUDA graph (`kernels.Graphs`).
    """

    def __init__(self, stages: list[nn.Module], mean: float, std: float) -> None:
        super().__init__(stages, mean, std)
        self.graphs = Graphs()

    def forward(self, image: Tensor, return_stages: bool = False) -> Decomposition:
        run = partial(super().forward, return_stages=return_stages)
        return run(image) if _watched(self) else self.graphs(return_stages, run, image)

    def _apply(self, function: Callable[..., Any], recurse: bool = True) -> Any:
        self.graphs.clear()  # they hold the weights where these were
        return super()._apply(function, recurse)

    @property
    def input_dtype(self) -> torch.dtype:
        return torch.float32


class Cast(nn.Module):
    """x in another dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


class Conv(nn.Module):
    """Conv(x), or max(0, Conv(x)) in one pass: a convolution that keeps height and width."""

    def __init__(self, conv: nn.Conv2d, relu: bool = False) -> None:
        super().__init__()
        self.weight, self.bias, self.relu = conv.weight, conv.bias, relu

    def forward(self, x: Tensor) -> Tensor:
        return same_conv2d(x, self.weight, self.bias, relu=self.relu)


class Pointwise(Conv):
    """The same of a 1x1 window: a linear map of each pixel's channels, which leaves them last in memory."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x.permute(0, 2, 3, 1), self.weight[:, :, 0, 0], self.bias).permute(0, 3, 1, 2)
        return y.relu_() if self.relu else y


class Residual(nn.Module):
    """x + layers(x)."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).add_(x)


def _watched(net: nn.Module) -> bool:
    """Whether hooks want to see the modules run."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def _on_chip(net: Unfolding) -> list[nn.Module] | None:
    """The stages in kernels that keep features on chip; None where one has no such form, whose memory differs."""
    forms = [on_chip(stage) for stage in net.stages]
    found: list[nn.Module] = [form for form in forms if form is not None]
    return found if len(found) == len(forms) else None


def _layer_by_layer(stage: nn.Module, dtype: torch.dtype) -> nn.Module:
    return _inference_form(plain(stage), dtype)


def _inference_form(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """`module` with every part of it folded, in place where it can be."""
    if isinstance(module, DynamicGate):
        return module  # of a plane, a number each
    if isinstance(module, DCPM):
        return _folded_prior(module, dtype)
    if isinstance(module, nn.Sequential):
        return nn.Sequential(*_folded(module, dtype))
    if isinstance(module, ResidualBlock):
        block = nn.Sequential(*_folded((module.conv1, module.relu, module.conv2), dtype))
        return Residual(block)
    if isinstance(module, ResidualGroup):
        return Residual(nn.Sequential(*_folded(module.body, dtype)))
    if isinstance(module, AttentiveBlock):
        *layers, channel, spatial = _folded(module.body, dtype)
        assert isinstance(channel, ChannelAttention)
        assert isinstance(spatial, DynamicSpatialAttention)
        return Residual(nn.Sequential(*layers, FusedAttention(channel, spatial)))
    if isinstance(module, nn.Conv2d):
        return _conv(module).to(dtype)
    for name, child in module.named_children():
        setattr(module, name, _inference_form(child, dtype))
    return module


def _conv(conv: nn.Conv2d, relu: bool = False) -> Conv:
    return Pointwise(conv, relu) if conv.kernel_size == (1, 1) else Conv(conv, relu)


def _folded_prior(prior: DCPM, dtype: torch.dtype) -> nn.Module:
    norm, *projection = prior.projection
    assert isinstance(norm, nn.BatchNorm2d)
    gate = nn.Sequential(*_folded(prior.contrast.gate, dtype))
    window, shift = (x.to(dtype) for x in folded_window(prior.contrast, norm))
    thin = thin_window(prior.contrast, norm)
    surround = FoldedWindow(-window, shift) if thin is None else thin.to(dtype)
    contrast = FoldedContrast(gate, window.sum(dim=(2, 3), keepdim=True), surround)
    return nn.Sequential(*_folded(prior.embedding, dtype), contrast, *_folded(projection, dtype))


def _folded(layers: Iterable[nn.Module], dtype: torch.dtype) -> list[nn.Module]:
    """The layers with batch norms and ReLUs inside the convolutions before them.

    Planes of one channel stay float32.
    """
    folded: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d | nn.ReLU):
            conv = folded.pop()
            assert isinstance(conv, nn.Conv2d)
            layer = _conv(conv, relu=True) if isinstance(layer, nn.ReLU) else fuse_conv_bn_eval(conv, layer)
        folded.append(layer)
    folded = [_inference_form(layer, dtype) for layer in folded]
    first, last = folded[0], folded[-1]
    if isinstance(first, Conv) and first.weight.shape[1] == 1:
        folded.insert(0, Cast(dtype))
    if isinstance(last, Conv) and last.weight.shape[0] == 1:
        folded.append(Cast(torch.float32))
    return [layer.to(dtype) for layer in folded]
