"""Convolution with a small window that keeps height and width, and a rectifier in the same pass over memory."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch.operator import NAMESPACE, channels_last, library_only, operator, unobserved
from .native import conv as conv_in_c


def same_conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """Convolution (as in networks: a correlation), stride 1, zero padding that keeps height and width.

        out[n, o, y, x] = bias[o] + sum_{c, i, j} weight[o, c, i, j] input[n, c, y + i - h // 2, x + j - w // 2]

    relu: max(0, out) instead.

    3x3 windows in float32 on a CPU, channels-last, go through C, as do their gradients, where numbers of channels
    are multiples of a vector's length (16 with AVX-512, 8 with AVX, else 4):
        - by Winograd's minimal filtering F(4x4, 3x3), with a quarter of the multiplications; a picture so small
          that its tiles do not repay the weight's transform does not. The relative error of the result is about
          5e-7 (`F.conv2d`: 2e-7), of the weight's gradient 1e-6 (3e-6), and a NaN or an infinity spoils the
          tiles of 4x4 pixels that it reaches.
        - to a single channel by a loop; from a single channel, only the gradients.
    A rectifier, where no gradients are wanted, is computed at once with the convolution there, by oneDNN on a CPU
    and by cuDNN on a GPU (channels in multiples of 8). Everything else is `F.conv2d` with a rectifier in place:
    where there is no C compiler, in double precision, under autocast, in `torch.func` transforms and forward
    mode, in second derivatives and in an exported graph.

    Args:
        input: (N, C, H, W).
        weight: (O, C, h, w), h and w odd.
        bias: (O,) or None.
        relu: whether to rectify.

    Returns:
        (N, O, H, W), channels-last where input or weight is.

    Raises:
        ValueError: shapes that do not fit, a window without a middle.
        RuntimeError: dtypes or devices that `F.conv2d` refuses.

    Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.

    Example:
        >>> image, weight = torch.ones(1, 1, 3, 3), -torch.ones(2, 1, 3, 3)
        >>> same_conv2d(image, weight, torch.tensor([0.0, 10.0]), relu=True)[0, :, 1, 1]
        tensor([0., 1.])
    """
    _require_shapes(input, weight, bias)
    operands = [x for x in (input, weight, bias) if x is not None]
    if library_only(input):
        return _library(input, weight, bias, relu)
    tracked = torch.is_grad_enabled() and any(x.requires_grad for x in operands)
    if _served_in_c(operands, tracked):
        out = _conv(input, weight, bias, relu and not tracked)
        return out.relu_() if relu and tracked else out
    if relu and not tracked and all(x.dtype == input.dtype for x in operands):
        return _with_relu(input, weight, bias)
    return _library(input, weight, bias, relu)


def _require_shapes(input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if weight.ndim != 4 or any(size % 2 == 0 for size in weight.shape[2:]):
        raise ValueError(f"weight must be (O, C, h, w) with h and w odd, got shape {tuple(weight.shape)}")
    if input.ndim != 4 or input.shape[1] != weight.shape[1]:
        raise ValueError(
            f"input {tuple(input.shape)} and weight {tuple(weight.shape)} do not fit: input must be (N, C, H, W)"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(
            f"bias {tuple(bias.shape)} must have one entry for each output of weight {tuple(weight.shape)}"
        )


def _library(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    out = F.conv2d(input, weight, bias, padding=_pads(weight))
    return out.relu_() if relu else out


def _pads(weight: Tensor) -> list[int]:
    return [size // 2 for size in weight.shape[2:]]


def _served_in_c(operands: list[Tensor], tracked: bool) -> bool:
    input, weight = operands[:2]
    if any(x.device.type != "cpu" or x.dtype != torch.float32 for x in operands):
        return False
    if not (channels_last(input) or channels_last(weight)):
        return False
    images, _, height, width = input.shape
    served = conv_in_c.serves(weight, images, height, width)
    return served or (tracked and conv_in_c.serves_weight_gradient(weight))


def _with_relu(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution and rectifier in one kernel, where cuDNN or oneDNN has one."""
    if input.is_cuda:
        halves = (torch.float16, torch.bfloat16)
        fits = input.dtype in (torch.float32, *halves) and not any(n % 8 for n in weight.shape[:2])
        return _cudnn(input, weight, bias) if fits else _library(input, weight, bias, True)
    if torch.compiler.is_compiling() or not _onednn_serves(input):
        return _library(input, weight, bias, True)
    fused = torch.ops.mkldnn._convolution_pointwise
    return fused(input, weight, bias, _pads(weight), [1, 1], [1, 1], 1, "relu", [], "")


def _onednn_serves(input: Tensor) -> bool:
    if input.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if input.dtype == torch.bfloat16:  # an error where the processor has no instructions for it
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return input.dtype == torch.float32


@torch.library.custom_op(f"{NAMESPACE}::conv2d_relu", mutates_args=(), device_types="cuda")
def _cudnn(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.cudnn_convolution_relu(input, weight, bias, [1, 1], _pads(weight), [1, 1], 1)


@_cudnn.register_fake
def _(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    layout = torch.channels_last if channels_last(input) or channels_last(weight) else torch.contiguous_format
    shape = (input.shape[0], weight.shape[0], *input.shape[2:])
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=layout)


def _forward(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    images, _, height, width = input.shape
    if conv_in_c.serves(weight, images, height, width):
        return conv_in_c.convolve(input, weight, bias, relu)
    return _library(input, weight, bias, relu).contiguous(memory_format=torch.channels_last)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, weight = ctx.saved_tensors
    needs = ctx.needs_input_grad[:3]
    if torch.is_grad_enabled():  # for second derivatives
        pads, sizes = _pads(weight), [len(weight)] if needs[2] else None
        return *_library_gradients(
            grad, input, weight, sizes, [1, 1], pads, [1, 1], False, [0, 0], 1, needs
        ), None
    turned = weight.flip(2, 3).transpose(0, 1)
    return (
        _conv(grad, turned, None, False) if needs[0] else None,
        _weight_gradient(input, grad) if needs[1] else None,
        grad.sum((0, 2, 3)) if needs[2] else None,
        None,
    )


_conv = operator("small_conv2d", _forward, conv_in_c.result, _save, _backward)
_library_gradients = torch.ops.aten.convolution_backward


def _weight_gradient(input: Tensor, grad: Tensor) -> Tensor:
    run = conv_in_c.weight_gradient if unobserved((input, grad)) else _weight_gradient_operator
    return run(input, grad)


_weight_gradient_operator = torch.library.custom_op(
    f"{NAMESPACE}::small_conv2d_weight_gradient", conv_in_c.weight_gradient, mutates_args=()
)


@_weight_gradient_operator.register_fake
def _(input: Tensor, gradient: Tensor) -> Tensor:
    return input.new_empty(3, 3, input.shape[1], gradient.shape[1]).permute(3, 2, 0, 1)
