"""The kernels for features of 16 bits: what they serve, in tiles of which size, and their launch."""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..compile import Kernel, kernel
from .packing import CHANNELS, TRAINED, inner

FOLDER = Path(__file__).parent
COLUMNS, WARPS, BACKWARD_WARPS, WINDOW = 32, 8, 12, 17
RESERVED = 1024  # bytes of shared memory that a block takes for itself
MOST_PLANES = 4

Planes = tuple[tuple[float, Tensor], ...]


class Chain(NamedTuple):
    """What `chain.cu` is compiled for."""

    channels: int
    layers: int
    from_plane: bool
    to_plane: bool
    rectified: int
    residual: bool = False
    pooled: bool = False
    kept: bool = False
    float16: bool = True

    def shared(self, rows: int) -> int:
        """Bytes of shared memory of a block."""
        channels = inner(self.channels)
        halo, pixel = self.layers + self.to_plane, 2 * channels
        height, pitch = rows + 2 * halo, COLUMNS + 2 * halo
        tile = -(-(height * pitch + 3) * pixel // 1024) * 1024
        tiles = 2 if self.layers > 1 else int(self.layers > 0 or not self.from_plane)
        sums = 9 * 4 * ((height * pitch + 11) // 16 * 16 + 4) if self.to_plane else 0
        source = (height + 2) * (pitch + 2) * 4 if self.from_plane else 0
        pooled = WARPS * channels * 4 if self.pooled else 0
        weights = 9 * channels * pixel if self.layers else 0
        return 2 * pixel + tiles * tile + weights + source + sums + pooled


class Chained(NamedTuple):
    """Features or a plane; of a pooled chain its blocks' sums (pictures, blocks, C); of a kept one the middle."""

    result: Tensor
    pooled: Tensor
    middle: Tensor


class _Planes(ctypes.Structure):
    _fields_ = (("plane", ctypes.c_void_p * MOST_PLANES), ("factor", ctypes.c_float * MOST_PLANES))


def serves(device: torch.device, channels: int) -> bool:
    """Whether chains of that many channels run on the device, whose compute capability must be 8 or later."""
    return (
        device.type == "cuda"
        and channels in CHANNELS
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and _chain_kernel(Chain(channels, 0, True, False, 0), 8, device) is not None
    )


def serves_training(device: torch.device, channels: int) -> bool:
    return channels in TRAINED and serves(device, channels)


def serves_gates(device: torch.device, channels: int, first: bool) -> bool:
    return serves(device, channels) and _gates_shared(channels, first) <= _limits(device)[0]


def serves_window(device: torch.device, channels: int) -> bool:
    return serves(device, channels) and _window_shared(channels, 8) <= _limits(device)[0]


@torch.compiler.disable
def run_chain(
    spec: Chain, source: Tensor | Planes, packed: Tensor, biases: Tensor, added: Planes = ()
) -> Chained:
    """`source` through the chain, to which a plane is added."""
    like = source if isinstance(source, Tensor) else source[0][1]
    pictures, _, height, width = like.shape
    device = like.device
    rows = _chain_rows(spec, -(-width // COLUMNS) * pictures, height, device)
    run = _chain_kernel(spec, rows, device)
    assert run is not None
    grid = (-(-width // COLUMNS), -(-height // rows), pictures)
    dtype = torch.float16 if spec.float16 else torch.bfloat16
    assert not isinstance(source, Tensor) or source.dtype == dtype
    features = _features(like, 0 if spec.to_plane else spec.channels, dtype)
    plane = torch.empty(
        (pictures, 1, height, width) if spec.to_plane else 0, dtype=torch.float32, device=like.device
    )
    pooled = biases.new_empty(pictures, grid[0] * grid[1] if spec.pooled else 0, inner(spec.channels))
    given = _planes(()) if isinstance(source, Tensor) else _planes(source)
    middle = torch.empty_like(features) if spec.kept else features
    start = like if isinstance(source, Tensor) else features
    arguments = (start, given, packed, biases, features, _planes(added), plane, pooled, middle, height, width)
    run(grid, 32 * WARPS, spec.shared(rows), *arguments)
    return Chained(plane if spec.to_plane else features, pooled, middle)


@torch.compiler.disable
def run_gate(pooled: Tensor, pixels: int, squeeze: tuple[Tensor, ...]) -> Tensor:
    """theta (pictures, C) from the sums of features; squeeze: A, a, B, b, in float32."""
    pictures, tiles, channels = pooled.shape
    run = kernel(FOLDER / "window.cu", "gate", pooled.device, **window_definitions(channels, 16))
    assert run is not None
    theta = torch.empty(pictures, channels, device=pooled.device)
    run(pictures, 256, 0, pooled, tiles, ctypes.c_float(1 / pixels), *squeeze, len(squeeze[0]), theta)
    return theta


@torch.compiler.disable
def run_window(features: Tensor, weights: tuple[Tensor, ...], theta: Tensor, slope: float) -> Tensor:
    """weights: packed window and centre, and the shift."""
    pictures, channels, height, width = features.shape
    device = features.device
    across = -(-width // COLUMNS)
    rows = _window_rows(channels, across * pictures, height, device)
    run = kernel(FOLDER / "window.cu", "window", device, **window_definitions(channels, rows))
    assert run is not None
    result = torch.empty_like(features)
    arguments = (*weights, theta, ctypes.c_float(slope), result, height, width)
    grid = (across, -(-height // rows), pictures)
    run(grid, 32 * WARPS, _window_shared(channels, rows), features, *arguments)
    return result


@torch.compiler.disable
def run_gates(
    z: Tensor, memory: tuple[Tensor, Tensor] | None, packed: Tensor, bias: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """The new hidden and cell states; they and what is given hold `scale` times their values."""
    pictures, channels, height, width = z.shape
    first = memory is None
    assert all(x.dtype == torch.float16 for x in (z, *(memory or ())))
    run = kernel(FOLDER / "gates.cu", "gates", z.device, **gates_definitions(channels, first))
    assert run is not None
    tiles = -(-width // COLUMNS) * -(-height // _gates_rows(channels)) * pictures
    blocks = min(tiles, _limits(z.device)[2])
    hidden, cell = torch.empty_like(z), torch.empty_like(z)
    before = (z, z) if memory is None else memory
    arguments = (z, *before, packed, bias, ctypes.c_float(scale), hidden, cell, height, width, tiles)
    run(blocks, 32 * WARPS, _gates_shared(channels, first), *arguments)
    return hidden, cell


@torch.compiler.disable
def run_layers(
    input: Tensor, weights: Sequence[Tensor], biases: Tensor, rectified: int, residual: bool
) -> list[Tensor]:
    """What each of one or two layers C -> C makes; weights float32 (C, C, 3, 3), the rest as in `Chain`."""
    channels, count = len(weights[0]), len(weights)
    pack = kernel(FOLDER / "pack.cu", "pack_weights", input.device, CHANNELS=channels)
    assert pack is not None
    dense = [weight.contiguous(memory_format=torch.channels_last) for weight in weights]
    packed = torch.empty(count * weights[0].numel(), dtype=torch.bfloat16, device=input.device)
    pack((9, count), 256, 0, dense[0], dense[-1], packed)
    spec = Chain(channels, count, False, False, rectified, residual, kept=count == 2, float16=False)
    found = run_chain(spec, input, packed, biases)
    return [found.middle, found.result] if spec.kept else [found.result]


def serves_conv_backward(device: torch.device, channels: int) -> bool:
    return serves_training(device, channels) and bool(_backward_rows(channels, device))


@torch.compiler.disable
def run_conv_backward(
    grad: Tensor, input: Tensor, weight: Tensor, rectified: bool, plus: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of input, weight and bias; weight float32."""
    pictures, channels, height, width = input.shape
    device, rows = input.device, _backward_rows(input.shape[1], input.device)
    definitions = backward_definitions(channels, rows)
    run = kernel(FOLDER / "conv_backward.cu", "conv_backward", device, **definitions)
    add_up = kernel(FOLDER / "conv_backward.cu", "sum_parts", device, **definitions)
    assert run is not None
    assert add_up is not None
    tiles = -(-width // COLUMNS) * -(-height // rows) * pictures
    blocks, part = min(tiles, _limits(device)[2]), channels * (9 * channels + 1)
    dense = weight.contiguous(memory_format=torch.channels_last)
    of_input, of_weight = torch.empty_like(input), torch.empty_like(dense)
    of_bias, parts = weight.new_empty(channels), weight.new_empty(blocks, part)
    added = ctypes.c_void_p() if plus is None else plus
    arguments = (dense, added, int(rectified), of_input, parts, height, width, tiles)
    run(blocks, 32 * BACKWARD_WARPS, _backward_shared(channels, rows), grad, input, *arguments)
    add_up(-(-part // 32), 256, 0, parts, blocks, of_weight, of_bias)
    return of_input, of_weight, of_bias


def _features(like: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    shape = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _planes(planes: Planes) -> _Planes:
    found = _Planes()
    for i, (factor, plane) in enumerate(planes):
        assert plane.dtype == torch.float32
        assert plane.is_contiguous()
        found.plane[i], found.factor[i] = plane.data_ptr(), factor
    return found


@lru_cache(None)
def _limits(device: torch.device) -> tuple[int, int, int]:
    """Bytes of shared memory that a block may have, that a multiprocessor has, and multiprocessors."""
    found = torch.cuda.get_device_properties(device)
    return (
        found.shared_memory_per_block_optin,  # type: ignore[attr-defined]  # missing from torch's types
        found.shared_memory_per_multiprocessor,
        found.multi_processor_count,
    )


@lru_cache(None)
def _chain_kernel(spec: Chain, rows: int, device: torch.device) -> Kernel | None:
    return kernel(FOLDER / "chain.cu", "chain", device, **chain_definitions(spec, rows))


def chain_definitions(spec: Chain, rows: int) -> dict[str, str | int]:
    wide = inner(spec.channels)
    names = ("HELD", "LAYERS", "FROM_PLANE", "TO_PLANE", "RECTIFIED", "RESIDUAL", "POOLED", "KEPT", "FLOAT16")
    tiles: dict[str, str | int] = {
        "CHANNELS": wide,
        "ROWS": rows,
        "COLUMNS": COLUMNS,
        "WARPS": WARPS,
        "MOST_TILES": 5,
        "PER_SM": 2,
    }
    return tiles | dict(zip(names, map(int, spec), strict=True))


@lru_cache(None)
def _chain_rows(spec: Chain, columns: int, height: int, device: torch.device) -> int:
    """Rows of a tile: the most of which two blocks share a multiprocessor, fewer where those leave some idle."""
    block, together, multiprocessors = _limits(device)
    choices = [rows for rows in (16, 14, 12, 8) if 2 * (spec.shared(rows) + RESERVED) <= together]
    choices = choices or [rows for rows in (16, 8, 4) if spec.shared(rows) <= block]
    busy = [rows for rows in choices if columns * -(-height // rows) >= 2 * multiprocessors]
    return (busy or choices[-1:])[0]


def gates_definitions(channels: int, first: bool) -> dict[str, str | int]:
    wide = inner(channels)
    return {
        "CHANNELS": wide,
        "HELD": channels,
        "WARPS": WARPS,
        "FIRST": int(first),
        "UNROLLED": 3,
        "FLOAT16": 1,
    }


def window_definitions(channels: int, rows: int) -> dict[str, str | int]:
    wide = inner(channels)
    return {"CHANNELS": wide, "HELD": channels, "ROWS": rows, "WARPS": WARPS, "UNROLLED": 1, "FLOAT16": 1}


@lru_cache(None)
def _window_rows(channels: int, columns: int, height: int, device: torch.device) -> int:
    """As `_chain_rows`; a block has a multiprocessor to itself."""
    block, _, multiprocessors = _limits(device)
    choices = [rows for rows in (32, 16, 8) if _window_shared(channels, rows) <= block]
    busy = [rows for rows in choices if columns * -(-height // rows) >= 2 * multiprocessors]
    return (busy or [rows for rows in choices if rows <= 16])[0]


def _window_shared(channels: int, rows: int) -> int:
    margin, pixel = WINDOW - 1, 2 * inner(channels)
    taps = WINDOW if channels <= 32 else 1
    return (rows + margin) * (COLUMNS + margin) * pixel + 2 * taps * inner(channels) * pixel


def backward_definitions(channels: int, rows: int) -> dict[str, str | int]:
    return {"CHANNELS": channels, "ROWS": rows}


@lru_cache(None)
def _backward_rows(channels: int, device: torch.device) -> int:
    """Rows of a tile, 0 where none fits."""
    return next((rows for rows in (16, 8) if _backward_shared(channels, rows) <= _limits(device)[0]), 0)


def _backward_shared(channels: int, rows: int) -> int:
    pixel = 2 * channels
    grad = -(-(rows + 2) * (COLUMNS + 2) * pixel // 1024) * 1024
    return 2 * (grad + rows * COLUMNS * pixel) + 9 * channels * pixel


def _gates_rows(channels: int) -> int:
    return WARPS * 16 // inner(channels)


def _gates_shared(channels: int, first: bool) -> int:
    sources, gates = (1, 3) if first else (2, 4)
    wide = inner(channels)
    tile = -(-(_gates_rows(channels) + 2) * (COLUMNS + 2) * 2 * wide // 1024) * 1024
    return sources * (2 * tile + 9 * (wide // 16) ** 2 * gates * 512)
