"""Convolution with a small window that keeps height and width, and a rectifier in the same pass over memory."""

import ctypes
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from kernels import native
from kernels._operator import NAMESPACE, under_functorch

TILE, POINTS = 4, 36  # of kernels/_winograd.c: sides of a tile of output, and multiplications for it
WEIGHT_TILES = 32  # the weight's transform takes about as long as the products of so many tiles


def same_conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """Convolution (as in networks: a correlation), stride 1, zero padding that keeps height and width.

        out[n, o, y, x] = bias[o] + sum_{c, i, j} weight[o, c, i, j] input[n, c, y + i - h // 2, x + j - w // 2]

    relu: max(0, out) instead.

    In inference:
        - 3x3 windows in float32 on a CPU, channels-last, both numbers of channels multiples of a vector's length
          (16 with AVX-512, 8 with AVX, else 4), go by Winograd's minimal filtering F(4x4, 3x3) in C, a quarter
          of the multiplications; a picture so small that its tiles do not repay the weight's transform does not.
          The relative error is about 5e-7 (`F.conv2d`: 2e-7), and a NaN or an infinity spoils the tiles of 4x4
          pixels that it reaches.
        - 3x3 windows from such channels to a single one go by a loop in C.
        - with a rectifier, oneDNN on a CPU and cuDNN on a GPU (channels in multiples of 8) compute both at once.
    Everything else is `F.conv2d` with a rectifier in place: where there is no C compiler, where gradients are
    wanted, in double precision, under autocast, in a `torch.func` transform and in an exported graph.

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
    arguments = [x for x in (input, weight, bias) if x is not None]
    if _plain(input) or (torch.is_grad_enabled() and any(x.requires_grad for x in arguments)):
        return _library(input, weight, bias, relu)
    if all(x.device.type == "cpu" and x.dtype == torch.float32 for x in arguments) and _served_in_c(
        input, weight
    ):
        run = _operator_in_c if torch.compiler.is_compiling() else _in_c
        return run(input, weight, bias, relu)
    if relu and all(x.dtype == input.dtype for x in arguments):
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


def _plain(input: Tensor) -> bool:
    """Whether the call is one that only PyTorch's own operators serve, or has nothing to compute."""
    return (
        input.numel() == 0
        or torch.compiler.is_exporting()
        or under_functorch()
        or forward_ad._current_level >= 0
        or torch.is_autocast_enabled(input.device.type)
        or (not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0)
    )


def _library(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    out = F.conv2d(input, weight, bias, padding=_pads(weight))
    return out.relu_() if relu else out


def _pads(weight: Tensor) -> list[int]:
    return [size // 2 for size in weight.shape[2:]]


def _channels_last(*tensors: Tensor) -> bool:
    return any(x.is_contiguous(memory_format=torch.channels_last) for x in tensors)


def _with_relu(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution and rectifier in one kernel, where cuDNN or oneDNN has one."""
    if input.is_cuda:
        fits = input.dtype in (torch.float32, torch.bfloat16) and not any(n % 8 for n in weight.shape[:2])
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
    layout = torch.channels_last if _channels_last(input, weight) else torch.contiguous_format
    shape = (input.shape[0], weight.shape[0], *input.shape[2:])
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=layout)


def _served_in_c(input: Tensor, weight: Tensor) -> bool:
    """Whether one of this package's C sources serves float32 tensors of these shapes and layouts, and faster."""
    if weight.shape[2:] != (3, 3) or not _channels_last(input, weight):
        return False
    outputs, inputs = weight.shape[:2]
    lanes = _lanes()
    if lanes == 0 or inputs % lanes != 0:
        return False
    return outputs == 1 or (outputs % lanes == 0 and _tiles_repay(*input.shape[2:], len(input)))


def _tiles_repay(height: int, width: int, images: int) -> bool:
    """Whether the multiplications of the tiles and of the weight's transform are fewer than the direct ones."""
    tiles = images * -(-height // TILE) * -(-width // TILE)
    return (tiles + WEIGHT_TILES) * POINTS < images * height * width * 9


@torch.compiler.assume_constant_result
def _lanes() -> int:
    """Channels that go into one vector; 0 where the C sources cannot be compiled."""
    winograd, to_one = _libraries()
    return 0 if winograd is None or to_one is None else winograd.lanes()


@lru_cache
def _libraries() -> tuple[ctypes.CDLL | None, ctypes.CDLL | None]:
    winograd, to_one = (
        native.load(Path(__file__).with_name(name)) for name in ("_winograd.c", "_thin_conv.c")
    )
    if winograd is not None:
        winograd.scratch_size.restype = ctypes.c_int64
    return winograd, to_one


class _Shape(ctypes.Structure):
    """The struct of this name in both C sources."""

    _fields_ = [
        (name, ctypes.c_int) for name in ("images", "height", "width", "inputs", "outputs", "rectify")
    ]


def _in_c(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    winograd, to_one = _libraries()
    assert winograd is not None
    assert to_one is not None
    images, inputs, height, width = input.shape
    outputs, threads = weight.shape[0], torch.get_num_threads()
    shape = ctypes.byref(_Shape(images, height, width, inputs, outputs, relu))
    pixels = input.contiguous(memory_format=torch.channels_last)
    taps = weight.permute(2, 3, 1, 0).contiguous()
    shift = weight.new_zeros(outputs) if bias is None else bias.contiguous()
    out = _result_in_c(input, weight, bias, relu)
    operands = [_at(x) for x in (pixels, taps, shift)]
    if outputs == 1:
        to_one.conv3x3_to_one(shape, *operands, threads, _at(out))
    else:
        scratch = input.new_empty(winograd.scratch_size(shape, threads))
        winograd.conv3x3(shape, *operands, threads, _at(scratch), _at(out))
    return out


def _at(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())


def _result_in_c(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    shape = (input.shape[0], weight.shape[0], *input.shape[2:])
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)


_operator_in_c = torch.library.custom_op(f"{NAMESPACE}::conv2d_in_c", _in_c, mutates_args=())
_operator_in_c.register_fake(_result_in_c)
