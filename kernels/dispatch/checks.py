"""Validation at the door: errors that name the argument and say what to do."""

import math
from collections.abc import Sequence
from itertools import zip_longest

import torch
from torch import Tensor

from .operator import under_functorch

DECOMPOSABLE = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def require_matrix(name: str, matrix: Tensor, *, square: bool = False) -> None:
    """ValueError unless `matrix` is a batch of matrices in a precision that can be decomposed."""
    if matrix.ndim < 2 or (square and matrix.shape[-1] != matrix.shape[-2]):
        kind = "square matrices (..., n, n)" if square else "matrices (..., m, n)"
        raise ValueError(f"{name} must hold {kind}, got shape {tuple(matrix.shape)}")
    if matrix.dtype not in DECOMPOSABLE:
        raise ValueError(
            f"{name} must be of single or double precision, got {matrix.dtype}: convert it with .float()"
        )


def require_finite(name: str, tensor: Tensor) -> None:
    """LinAlgError where a decomposition would meet NaN or infinity."""
    finite = math.isfinite(float(torch.linalg.vector_norm(tensor)))  # one pass; it may overflow
    if not (finite or bool(tensor.isfinite().all())):
        raise torch.linalg.LinAlgError(f"{name} holds NaN or infinity")


def require_sign(name: str, value: Tensor | float | None, *, positive: bool = False) -> None:
    """ValueError unless numbers are real and not negative, or positive; a tensor's, where they can be seen."""
    if value is None:
        return
    if not isinstance(value, Tensor):
        fits, shown = value > 0 if positive else value >= 0, value
    elif value.is_complex():
        raise ValueError(f"{name} must be real, got {value.dtype}")
    elif _hidden(value):
        return
    else:
        fits = bool((value > 0 if positive else value >= 0).all())
        shown = 0.0 if fits else value.amin().item()
    if not fits:
        raise ValueError(f"{name} must {'be positive' if positive else 'not be negative'}, got {shown}")


def _hidden(value: Tensor) -> bool:
    """Whether the numbers cannot be looked at: traced, batched by a transform, recorded into a CUDA graph."""
    return (
        torch.compiler.is_compiling()
        or under_functorch()
        or bool(torch._C._len_torch_dispatch_stack())
        or type(value) not in (Tensor, torch.nn.Parameter)
        or value.is_meta
        or (value.is_cuda and torch.cuda.is_current_stream_capturing())
    )


def require_one_device(**tensors: Tensor | float | None) -> None:
    """ValueError with both shapes where two tensors live on different devices."""
    held = [
        (name, tensor) for name, tensor in tensors.items() if isinstance(tensor, Tensor) and tensor.ndim > 0
    ]
    for name, tensor in held[1:]:
        first, reference = held[0]
        if tensor.device != reference.device:
            raise ValueError(
                f"{first} {tuple(reference.shape)} is on {reference.device} but "
                f"{name} {tuple(tensor.shape)} is on {tensor.device}: move them to one device"
            )


def require_broadcast(name: str, shape: torch.Size, onto_name: str, onto: torch.Size) -> None:
    """ValueError with both shapes unless `shape` broadcasts onto `onto` without enlarging it."""
    trailing = onto[len(onto) - len(shape) :]
    if len(shape) > len(onto) or any(
        size not in (1, target) for size, target in zip(shape, trailing, strict=True)
    ):
        raise ValueError(f"{name} of shape {tuple(shape)} does not broadcast onto {onto_name} {tuple(onto)}")


def broadcast_batches(names: str, *shapes: Sequence[int]) -> torch.Size:
    """As `torch.broadcast_shapes` has it, whose first call imports SymPy for a second or more.

    Raises ValueError, which says `names`, where the batch shapes do not broadcast.

    >>> broadcast_batches("x, y and z", (2, 1), (3,), ())
    torch.Size([2, 3])
    """
    sizes = []
    for axis in zip_longest(*map(reversed, shapes), fillvalue=1):
        size = next((n for n in axis if n != 1), 1)
        if any(n not in (1, size) for n in axis):
            shown = ", ".join(str(tuple(shape)) for shape in shapes)
            raise ValueError(f"the batch shapes of {names} do not broadcast: {shown}")
        sizes.append(size)
    return torch.Size(reversed(sizes))
