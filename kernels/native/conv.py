"""The 3x3 convolutions of winograd.c and thin_conv.c, float32 on a CPU, channels last."""

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import compiler

TILE, POINTS = 4, 36  # of winograd.c: sides of a tile of output, and multiplications for it
WEIGHT_TILES = 32  # the transform of the weight takes about as long as that many tiles


class Shape(ctypes.Structure):
    """The struct of this name in both sources."""

    _fields_ = [
        (name, ctypes.c_int) for name in ("images", "height", "width", "inputs", "outputs", "rectify")
    ]


def serves(weight: Tensor, images: int, height: int, width: int) -> bool:
    """Whether `convolve` takes pictures of this size and such a weight, and is faster than the library."""
    outputs, inputs, *window = weight.shape
    lanes = vector_length()
    if window != [3, 3] or lanes == 0 or inputs % lanes:
        return False
    return outputs == 1 or (outputs % lanes == 0 and tiles_repay(images, height, width))


def serves_weight_gradient(weight: Tensor) -> bool:
    """The same of `weight_gradient`, of pictures of any size."""
    lanes = vector_length()
    thick = [channels % lanes == 0 if lanes else False for channels in weight.shape[:2]]
    return weight.shape[2:] == (3, 3) and (all(thick) or (any(thick) and 1 in weight.shape[:2]))


def tiles_repay(images: int, height: int, width: int) -> bool:
    """Whether the multiplications of the tiles and of the weight's transform are fewer than the direct ones."""
    tiles = images * -(-height // TILE) * -(-width // TILE)
    return (tiles + WEIGHT_TILES) * POINTS < images * height * width * 9


def vector_length() -> int:
    """Channels that go into one vector; 0 where the sources cannot be compiled."""
    winograd, to_one = _libraries()
    return 0 if winograd is None or to_one is None else winograd.lanes()


# What `torch.compiler.assume_constant_result` sets; that imports the compiler, which takes a second.
vector_length._dynamo_marked_constant = True  # type: ignore[attr-defined]


def convolve(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    winograd, to_one = _compiled()
    shape = _shape(input, len(weight), relu)
    shift = weight.new_zeros(len(weight)) if bias is None else bias.contiguous()
    taps = weight.permute(2, 3, 1, 0).contiguous()
    out = result(input, weight, bias, relu)
    if len(weight) == 1:
        _call(to_one.conv3x3_to_one, shape, _pixels(input), taps, shift, out)
    else:
        scratch = input.new_empty(winograd.scratch_size(shape, torch.get_num_threads()))
        _call(winograd.conv3x3, shape, _pixels(input), taps, shift, scratch, out)
    return out


def result(input: Tensor, weight: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    """What `convolve` writes into."""
    shape = (input.shape[0], weight.shape[0], *input.shape[2:])
    return torch.empty(shape, dtype=input.dtype, device=input.device, memory_format=torch.channels_last)


def weight_gradient(input: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of the weight, (O, C, 3, 3), where `gradient` is that of the output (N, O, H, W)."""
    inputs, outputs = input.shape[1], gradient.shape[1]
    if outputs == 1:
        return _thin_weight_gradient(input, gradient).permute(2, 0, 1)[None]
    if inputs == 1:  # the sum over pixels is the same with both in turn, but counts the taps backwards
        return _thin_weight_gradient(gradient, input).flip(0, 1).permute(2, 0, 1)[:, None]
    winograd, _ = _compiled()
    shape = _shape(input, outputs)
    scratch = input.new_empty(winograd.gradient_scratch_size(shape, torch.get_num_threads()))
    out = input.new_empty(3, 3, inputs, outputs)
    _call(winograd.conv3x3_weight_gradient, shape, _pixels(input), _pixels(gradient), scratch, out)
    return out.permute(3, 2, 0, 1)


def _thin_weight_gradient(pictures: Tensor, plane: Tensor) -> Tensor:
    _, to_one = _compiled()
    shape = _shape(pictures, 1)
    scratch = plane.new_empty(to_one.gradient_scratch_size(shape, torch.get_num_threads()))
    out = plane.new_empty(3, 3, pictures.shape[1])
    _call(to_one.conv3x3_to_one_weight_gradient, shape, _pixels(pictures), plane.contiguous(), scratch, out)
    return out


@lru_cache
def _libraries() -> tuple[ctypes.CDLL | None, ctypes.CDLL | None]:
    winograd, to_one = (
        compiler.load(Path(__file__).with_name(name)) for name in ("winograd.c", "thin_conv.c")
    )
    if winograd is not None and to_one is not None:
        for size in (winograd.scratch_size, winograd.gradient_scratch_size, to_one.gradient_scratch_size):
            size.restype = ctypes.c_int64
    return winograd, to_one


def _compiled() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    winograd, to_one = _libraries()
    assert winograd is not None
    assert to_one is not None
    return winograd, to_one


def _shape(input: Tensor, outputs: int, relu: bool = False) -> object:
    images, inputs, height, width = input.shape
    return ctypes.byref(Shape(images, height, width, inputs, outputs, relu))


def _pixels(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _call(function: Any, shape: object, *tensors: Tensor) -> None:
    function(shape, torch.get_num_threads(), *(ctypes.c_void_p(x.data_ptr()) for x in tensors))
