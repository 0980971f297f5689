"""Layers of a network in training on a GPU in bfloat16, several in one operator, by kernels of this package.

What `F.conv2d`, `F.batch_norm` and rectifiers compute one by one: features are bfloat16, channels-last, sums
float32, planes of one channel float32. `serves` says where they apply; everywhere else the layers run one by one.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .dispatch import spectral_product
from .dispatch.operator import under_transform
from .gpu.features.packing import TRAINED

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

LARGEST = 2**31  # of an offset into a tensor


def serves(input: Tensor, channels: int) -> bool:
    """Whether layers of so many channels that `input` (N, C, H, W) meets may run by these operators."""
    return (
        input.is_cuda
        and channels in TRAINED
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and torch.is_autocast_enabled("cuda")
        and torch.get_autocast_dtype("cuda") == torch.bfloat16
        and not under_transform()
        and torch._C._len_torch_dispatch_stack() == 0
        and 0 < input.shape[0] * input.shape[2] * input.shape[3] * 4 * channels < LARGEST
        and find_spec("triton") is not None
    )


def conv_run(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None,
    last_relu: bool = False,
    residual: bool = False,
) -> Tensor:
    """3x3 convolutions with a rectifier after each but the last, and after that too with `last_relu`.

    x: (N, C, H, W), C = 1 or many.  weights: (O, C, 3, 3) each, biases (O,) each or None for a single convolution.
    residual: x is added to the result of two layers C -> C, or one.
    """
    if x.shape[1] > 1:
        x = x.to(_features(x)).contiguous(memory_format=torch.channels_last)
    parameters = [*weights, *(biases or ())]
    return _ConvRun.apply(x, len(weights), last_relu, residual, *parameters)


def norm_activation(
    x: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor,
    bias: Tensor,
    momentum: float,
    eps: float,
    slope: float,
    added: Tensor | None = None,
    group: "ProcessGroup | None" = None,
) -> Tensor:
    """Batch norm in training and a rectifier that leaves `slope` of what is below 0.

    added: (C,), counts as part of x, whose result it does not change, but whose running mean it belongs to.
    group: the processes that share the batch, each with a part of x's shape. Gradients are then those of the sum
    of all losses, but for weight's and bias's, of which each process has its part.
    """
    x = x.to(_features(x)).contiguous(memory_format=torch.channels_last)
    parameters = (weight, bias, added)
    return _NormActivation.apply(x, running_mean, running_var, *parameters, momentum, eps, slope, group)


def lstm(gates: Tensor, bias: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """Hidden state and cell of gates f, i, o, j side by side, or i, o, j where there is no cell before.

    c = f c' + i j,  h = o tanh(c);  c = i j,  h = o c without a cell before.
    """
    return _LSTM.apply(gates.contiguous(memory_format=torch.channels_last), bias, before)


def window(x: Tensor, weight: Tensor) -> Tensor:
    """Minus the correlation with a large square window, zero padding to keep the size, by `spectral_product`."""
    x = x.to(_features(x)).contiguous(memory_format=torch.channels_last)
    return _Window.apply(x, weight)


def gated(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """theta x + y, of features and a number for each picture and channel, (N, C, 1, 1)."""
    x, y = (z.to(_features(z)).contiguous(memory_format=torch.channels_last) for z in (x, y))
    return _Gated.apply(theta, x, y)


def mean(x: Tensor) -> Tensor:
    """Over pixels, (N, C, 1, 1) in float32."""
    return _Mean.apply(x.contiguous(memory_format=torch.channels_last))


def _features(x: Tensor) -> torch.dtype:
    return torch.bfloat16 if x.is_cuda else x.dtype


def _without_autocast(function: Any) -> Any:
    return torch.autocast("cuda", enabled=False)(function)


class _ConvRun(torch.autograd.Function):
    @staticmethod
    @_without_autocast
    def forward(
        ctx: Any, x: Tensor, count: int, last_relu: bool, residual: bool, *parameters: Tensor
    ) -> Tensor:
        from .gpu import conv_layers, thin_conv

        weights, biases = parameters[:count], parameters[count:]
        kept = [x]
        for group in _groups(weights):
            weight, shifts = weights[group[0]], [biases[k] for k in group] if biases else None
            rectified = [last_relu or k < count - 1 for k in group]
            if weight.shape[1] == 1:
                shift = weight.new_zeros(len(weight)) if shifts is None else shifts[0]
                kept.append(thin_conv.from_plane(kept[-1], weight, shift, rectified[0], _features(x)))
            elif weight.shape[0] == 1:
                assert shifts is not None
                kept.append(thin_conv.to_plane(kept[-1], weight, shifts[0]))
            else:
                square = [weights[k] for k in group]
                kept += conv_layers.layers(kept[-1], square, shifts, rectified, residual)
        features = kept[-1]
        ctx.count, ctx.last_relu, ctx.residual, ctx.biased = count, last_relu, residual, bool(biases)
        ctx.save_for_backward(*kept[: None if last_relu else -1], *weights)
        return features

    @staticmethod
    @_without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from .gpu import conv_layers, thin_conv

        count = ctx.count
        kept, weights = ctx.saved_tensors[:-count], ctx.saved_tensors[-count:]
        of_weights: list[Tensor] = []
        of_biases: list[Tensor] = []
        if grad.shape[1] > 1:
            grad = grad.contiguous(memory_format=torch.channels_last)
        g: Tensor | None = grad
        last = count - 1
        for index in range(last, -1, -1):
            assert g is not None
            x, weight, rectified = kept[index], weights[index], index > 0
            masked = (
                index == last and ctx.last_relu
            )  # by its own output: further up each step masks its input's
            if weight.shape[1] == 1:
                out = kept[index + 1] if masked else g
                g, *found = thin_conv.from_plane_backward(g, out, x, weight, masked, ctx.needs_input_grad[0])
            elif weight.shape[0] == 1:
                g, *found = thin_conv.to_plane_backward(g, x, weight, rectified)
            else:
                g = g * (kept[index + 1] > 0) if masked else g
                plus = grad if ctx.residual and index == 0 else None
                g, *found = conv_layers.gradients(g, x, weight, rectified, plus)
            of_weights.insert(0, found[0])
            of_biases.insert(0, found[1])
        return g, None, None, None, *of_weights, *(of_biases if ctx.biased else ())


def _groups(weights: Sequence[Tensor]) -> list[range]:
    """The layers that run at once: one or two C -> C, or one from or to a plane."""
    groups: list[range] = []
    while (index := groups[-1].stop if groups else 0) < len(weights):
        square = [1 not in weight.shape[:2] for weight in weights[index : index + 2]]
        groups.append(range(index, index + (2 if square == [True, True] else 1)))
    return groups


class _NormActivation(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor,
        bias: Tensor,
        added: Tensor | None,
        momentum: float,
        eps: float,
        slope: float,
        group: "ProcessGroup | None",
    ) -> Tensor:
        from .gpu import batch_norm

        parameters = (weight, bias, added)
        found = batch_norm.batch_norm(x, running_mean, running_var, *parameters, momentum, eps, slope, group)
        ctx.save_for_backward(x, found.constants, added)
        ctx.slope, ctx.group = slope, group
        return found.out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        from .gpu import batch_norm

        x, constants, added = ctx.saved_tensors
        grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
        of_x, of_weight, of_bias = batch_norm.batch_norm_backward(grad, x, constants, ctx.slope, ctx.group)
        of_added = None if added is None else torch.zeros_like(added)
        return of_x, None, None, of_weight, of_bias, of_added, None, None, None, None


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, bias: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        from .gpu import lstm

        ctx.save_for_backward(gates, bias, before)
        return lstm.lstm(gates, bias, before)

    @staticmethod
    @_without_autocast
    def backward(ctx: Any, of_hidden: Tensor, of_cell: Tensor) -> tuple[Tensor | None, ...]:
        from .gpu import lstm

        gates, bias, before = ctx.saved_tensors
        of_hidden = of_hidden.contiguous(memory_format=torch.channels_last)
        of_cell = of_cell.contiguous(memory_format=torch.channels_last)
        of_gates, of_bias, of_before = lstm.lstm_backward(of_hidden, of_cell, gates, bias, before)
        return of_gates, of_bias.to(bias.dtype), of_before


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        from .gpu import gated

        ctx.save_for_backward(theta, x)
        return gated.gated(theta, x, y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from .gpu import gated

        theta, x = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        of_theta, of_x = gated.gated_backward(grad, theta, x)
        return of_theta.to(theta.dtype), of_x, grad


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        from .gpu import gated

        ctx.shape, ctx.dtype = x.shape, x.dtype
        return gated.mean(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return (grad / (ctx.shape[2] * ctx.shape[3])).to(ctx.dtype).expand(ctx.shape)


class _Window(torch.autograd.Function):
    @staticmethod
    @_without_autocast
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.grid = spectral_product.grid_of(weight.shape[-1], *x.shape[-2:])
        found = spectral_product.correlate(x, weight, ctx.grid, -1)
        ctx.window, ctx.dtype = weight.shape[-1], weight.dtype
        ctx.save_for_backward(*found[1:])
        return found.out

    @staticmethod
    @_without_autocast
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        grad = grad.contiguous(memory_format=torch.channels_last)
        found = spectral_product.Forward(grad, *ctx.saved_tensors)
        of_x, of_weight = spectral_product.gradients(grad, found, ctx.window, ctx.grid, -1)
        return of_x, of_weight.to(ctx.dtype)
