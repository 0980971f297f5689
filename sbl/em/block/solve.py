"""The EM loop on a GPU: a block of threads a problem, all iterations in one launch, the posterior in another.

For problems on a GPU that fit into a multiprocessor's shared memory `em.cu` has the loop of `em.c`,
`unfolded.cu` the iterations of UnfoldedKroSBL, and `posterior.cu` what a last E-step gives. Where they cannot be
compiled, and for what they do not serve, PyTorch gives the same.
"""

import ctypes
import math
import pathlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import Tensor

from ....kernels.gpu import compile
from ...problem import Problem
from ..call import MOST_FACTORS, Call

SOURCES = {
    f"em_{name}": pathlib.Path(__file__).with_name(f"{file}.cu")
    for name, file in (("solve", "em"), ("posterior", "posterior"), ("unfolded", "unfolded"))
}
FULL_MOMENT = 0  # a step whose E-step forms variances
THREADS, WARP = 256, 32
RESERVED = 3072  # bytes of shared memory that the kernel and the system use beside the problem's state

Places = ctypes.c_int32 * MOST_FACTORS
_SPACES = ("L", "one", "two", "P", "D")
_OF_FACTORS = (
    *("g", "fresh", "best", "s", "s_fresh", "s_best", "inverse", "mapped", "p", "position", "positive"),
    *("R", "Q", "B", "W", "E"),
)


class Layout(ctypes.Structure):
    """The structure of this name in `block.cuh`: where everything lies in shared memory, in float64."""

    _fields_ = (*((name, ctypes.c_int32) for name in _SPACES), *((name, Places) for name in _OF_FACTORS))


@lru_cache
def layout(rows: tuple[int, ...], columns: tuple[int, ...], complex_numbers: bool) -> tuple[Layout, int]:
    """Where the state of a problem of these factors lies, and its size in bytes.

    >>> layout((6, 3, 16), (18, 18, 18), True)[1] // 1000
    109
    """
    width = 2 if complex_numbers else 1
    order = [min(M, N) for M, N in zip(rows, columns, strict=True)]
    shares = [k + 1 if k < N else k for k, N in zip(order, columns, strict=True)]
    work = [k * max(M, N) for k, M, N in zip(order, rows, columns, strict=True)]
    most, pairs = max(columns), sum((k + 1) // 2 for k in order)
    axes = THREADS // WARP * most
    tensors = width * max(math.prod(rows), _before_last(columns, order))
    sweep = sum(_behind(columns)) + math.prod(columns[1:])
    sweep += sum(_behind(order)) + math.prod(order[1:])
    spread = max(math.prod(shares), _before_last(columns, shares))
    sizes = {
        "L": math.prod(columns),
        "one": max(tensors, width * sum(work), sweep, 2 * most**2, spread, axes),
        "two": max(tensors, 8 * pairs, 16 * most + 16, 4 * most + max(order), sum(_behind(columns)), spread),
        "P": math.prod(order),
        "D": math.prod(order),
    }
    places, used = Layout(), 0
    for name, size in sizes.items():
        setattr(places, name, used)
        used += _even(size)
    begin = places.one
    for i, size in enumerate(work):
        places.R[i] = begin
        begin += width * size
    for i, (k, N) in enumerate(zip(order, columns, strict=True)):
        vector = dict.fromkeys(_OF_FACTORS[:11], N)
        matrix = {"Q": width * k * k, "B": width * work[i], "W": width * k * N, "E": shares[i] * N}
        for name, size in (vector | {"mapped": k, "p": k} | matrix).items():
            getattr(places, name)[i] = used
            used += _even(size)
    return places, 8 * used


def _even(size: int) -> int:
    return size + size % 2


def _before_last(out: Sequence[int], order: Sequence[int]) -> int:
    """The largest tensor on the way from sizes `order` to `out`, whose most growing axis goes last."""
    return max(math.prod(order), min(math.prod(out) * k // n for k, n in zip(order, out, strict=True)))


def _behind(sizes: Sequence[int]) -> list[int]:
    return [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]


def serves(problem: Problem, name: str, step: int) -> bool:
    """Whether `name` of SOURCES takes the problems: on a GPU, fit for shared memory, and there is a compiler."""
    device = problem.y.device
    if device.type != "cuda" or len(problem.factors) > MOST_FACTORS or torch.version.hip:
        return False
    rows = tuple(factor.shape[-2] for factor in problem.factors)
    properties = torch.cuda.get_device_properties(device)
    room = getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block)
    if layout(rows, problem.lengths, problem.y.is_complex())[1] > room - RESERVED:
        return False
    return _compiled(name, device, len(rows), problem.y.is_complex(), step)


@lru_cache(None)
def _compiled(name: str, device: torch.device, factors: int, complex_numbers: bool, step: int) -> bool:
    """Whether `name` and the posterior can be compiled, which they are side by side."""
    wanted = (name, step), ("em_posterior", FULL_MOMENT)
    with ThreadPoolExecutor(len(wanted)) as threads:
        kernels = threads.map(
            lambda kind: _kernel(kind[0], device, factors, complex_numbers, kind[1]), wanted
        )
        return None not in kernels


def run(call: Call, device: torch.device) -> None:
    """Solve every problem of the call, whose pointers are the device's, on PyTorch's current stream."""
    _launch("em_solve", device, call, call.step)


def unfold(call: Call, noise: Tensor, numbers: Tensor, neighbours: int) -> None:
    """Unfolded iterations of every problem, which leave their g; the tensors are those of `em_unfolded`."""
    _launch("em_unfolded", noise.device, call, call.step, noise, numbers, neighbours)


def posterior(call: Call, mean: Tensor, variance: Tensor, residual: Tensor) -> None:
    """Of every problem, under its g: mean and variance (B, N), given as zeros, and ||y - A mean||^2 (B,)."""
    _launch("em_posterior", mean.device, call, FULL_MOMENT, mean, variance, residual)


def _launch(name: str, device: torch.device, call: Call, step: int, *others: Tensor | int) -> None:
    kernel = _kernel(name, device, call.factors, bool(call.complex_numbers), step)
    assert kernel is not None
    sizes = tuple(call.rows[: call.factors]), tuple(call.columns[: call.factors])
    places, size = layout(*sizes, bool(call.complex_numbers))
    if call.problems:
        kernel(call.problems, THREADS, size, call, places, *others)


def _kernel(
    name: str, device: torch.device, factors: int, complex_numbers: bool, step: int
) -> compile.Kernel | None:
    return compile.kernel(SOURCES[name], name, device, **definitions(factors, complex_numbers, step))


def definitions(factors: int, complex_numbers: bool, step: int) -> dict[str, str | int]:
    """Of the preprocessor, for each of SOURCES."""
    sizes = {"FACTORS": factors, "THREADS": THREADS, "BLOCKS": 2}
    return {"STEP": int(step), "COMPLEX": int(complex_numbers), **sizes}
