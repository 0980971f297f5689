"""What the layers of a network meet on pictures: the statistics that say which errors of a weight matter."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import large_kernel_conv2d
from ..modules.dcpm import CentralContrast
from ..modules.layers import Conv3x3
from ..modules.mam import ConvLSTM
from ..networks.unfolding import UnfoldedNetwork

COLUMNS = 64  # of a picture whose vertical strips are counted
Layer = Conv3x3 | CentralContrast
See = Callable[[str, Tensor], None]


def layers_of(net: nn.Module) -> dict[str, Layer]:
    """The layers that can be compressed, by name: 3x3 convolutions C -> C' of several channels, and windows."""
    return {
        name: layer
        for name, layer in net.named_modules()
        if type(layer) is CentralContrast or (type(layer) is Conv3x3 and min(layer.weight.shape[:2]) > 1)
    }


def gram_matrices(net: UnfoldedNetwork, pictures: Sequence[Tensor]) -> dict[str, Tensor]:
    """For each layer X^T X over its inputs' vertical strips, (C h, C h), in double precision."""
    layers = layers_of(net)
    grams: dict[str, Tensor] = {}

    def see(name: str, x: Tensor) -> None:
        height = layers[name].weight.shape[2]
        picked = x[..., :: max(1, x.shape[-1] // COLUMNS)]
        strips = F.unfold(picked, (height, 1), padding=(height // 2, 0)).transpose(0, 1).flatten(1)
        grams[name] = grams.get(name, 0) + (strips @ strips.mT).double()

    _run(net, pictures, see)
    return grams


def output_errors(
    net: UnfoldedNetwork, pictures: Sequence[Tensor], weights: dict[str, Tensor]
) -> dict[str, float]:
    """|conv(x, weight - W)| / |conv(x, W)| over the inputs x of each layer of weight W that has a new one.

    Without pictures |weight - W| / |W|.
    """
    layers = layers_of(net)
    if not pictures:
        old = {name: layers[name].weight.detach() for name in weights}
        return {
            name: ((weight - old[name]).norm() / old[name].norm()).item() for name, weight in weights.items()
        }
    sums = {name: torch.zeros(2, dtype=torch.float64) for name in weights}

    def see(name: str, x: Tensor) -> None:
        if name in weights:
            for i, weight in enumerate((weights[name] - layers[name].weight, layers[name].weight)):
                sums[name][i] += large_kernel_conv2d(x, weight).double().square().sum().cpu()

    _run(net, pictures, see)
    return {name: (error / size).sqrt().item() for name, (error, size) in sums.items()}


@torch.no_grad()
def _run(net: UnfoldedNetwork, pictures: Sequence[Tensor], see: See) -> None:
    """Show `see` the inputs of every layer, a picture after the other; the network is left in its mode."""
    training, device = net.training, next(net.parameters()).device
    net.eval()
    with _watched(net, see):
        for picture in pictures:
            net(picture[None].to(device))
    net.train(training)


@contextmanager
def _watched(net: UnfoldedNetwork, see: See) -> Iterator[None]:
    hooks = [
        layer.register_forward_pre_hook(partial(_show, see, name)) for name, layer in layers_of(net).items()
    ]
    lstms = {name: module for name, module in net.named_modules() if isinstance(module, ConvLSTM)}
    hooks += [lstm.register_forward_pre_hook(partial(_show_both, see, name)) for name, lstm in lstms.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _show(see: See, name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    see(name, inputs[0])


def _show_both(see: See, name: str, lstm: nn.Module, inputs: tuple[Any, ...]) -> None:
    """A later stage's LSTM convolves z and h' at once, by the weights of both of its layers."""
    see(f"{name}.gates_x", inputs[0])
    see(f"{name}.gates_h", inputs[1].hidden)
