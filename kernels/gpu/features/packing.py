"""Weights as the tensor cores take them: what a lane wants of a product, in one word of 16 bytes."""

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS = (8, 16, 32, 64)  # of which there are kernels
TRAINED = (16, 32)  # of which there are gradients, too


def inner(channels: int) -> int:
    """Channels of a product: it takes 16 at a time."""
    return max(16, channels)


def at_once(channels: int) -> int:
    """Layers C -> C of one kernel; those of 64 channels PyTorch's library computes faster."""
    return 2 if channels <= 32 else 0


def widened(x: Tensor, channels: int) -> Tensor:
    """With zeros up to `inner(channels)` in every dimension that is `channels` long."""
    more = [(inner(channels) - channels) * (size == channels) for size in reversed(x.shape)]
    return F.pad(x, [end for count in more for end in (0, count)]) if any(more) else x


def packed(weight: Tensor) -> Tensor:
    """(T, K, N), one product's right side for each of T taps, to float16 in the order of lanes; K, N in 16s.

    Lane 4g + t of `mma.m16n8k16` holds the rows 2t, 2t + 1, 2t + 8, 2t + 9 of column g; two blocks of 8 columns
    lie side by side.
    """
    taps, inner, columns = weight.shape
    lanes = weight.reshape(taps, inner // 16, 2, 4, 2, columns // 16, 2, 8)
    return lanes.permute(0, 1, 5, 7, 3, 6, 2, 4).to(torch.float16).flatten()


def taps_of(weight: Tensor) -> Tensor:
    """(O, C, h, w) to (h w, C, O)."""
    return weight.permute(2, 3, 1, 0).flatten(0, 1)


def embedding(weight: Tensor) -> Tensor:
    """(C, 1, 3, 3): one product whose inner dimension is the tap, 9 of 16."""
    right = weight.new_zeros(1, 16, len(weight))
    right[0, :9] = weight.flatten(1).T
    return packed(right)


def projection(weight: Tensor) -> Tensor:
    """(1, C, 3, 3): one product whose columns are the taps, 9 of 16."""
    right = weight.new_zeros(1, weight.shape[1], 16)
    right[0, :, :9] = weight[0].flatten(1)
    return packed(right)


def gates(weight: Tensor, count: int) -> Tensor:
    """(count C, S C, 3, 3) of S sources, their taps one after another; columns by 16 channels, gate, channel."""
    channels = len(weight) // count
    sources, wide = weight.shape[1] // channels, inner(channels)
    parts = [
        widened(part, channels)
        for part in weight.reshape(count * channels, sources, channels, 9).split(channels)
    ]
    ordered = torch.stack(parts).reshape(count, wide // 16, 16, sources, wide, 9).permute(3, 5, 4, 1, 0, 2)
    return packed(ordered.reshape(9 * sources, wide, count * wide))
