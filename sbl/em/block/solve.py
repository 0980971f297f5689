"""The EM loop on a GPU: a block of threads a problem, all iterations in one launch, the posterior in another.

For problems on a GPU that fit into a multiprocessor's shared memory `em.cu` has the loop of `em.c`,
`unfolded.cu` the iterations of UnfoldedKroSBL, and `posterior.cu` what a last E-step gives. Where they cannot be
compiled, and for what they do not serve, PyTorch gives the same.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import Tensor

from ....kernels.gpu import compile
from ...problem import Problem
from ..call import MOST_FACTORS, Call
from .sources import FULL_MOMENT, SOURCES, STAGES, THREADS, definitions

WARP = 32
RESERVED = 3072  # bytes of shared memory that a block and the system use beside the problem's state
REAL = 8  # bytes of a real number


@lru_cache
def state_size(rows: tuple[int, ...], columns: tuple[int, ...], complex_numbers: bool) -> int:
    """Bytes of the state of a problem of these factors, as `lay_out` in kept.cuh lays it out.

    >>> state_size((6, 3, 16), (18, 18, 18), True) // 1000
    110
    """
    width = 2 if complex_numbers else 1
    order = [min(M, N) for M, N in zip(rows, columns, strict=True)]
    shares = [k + 1 if k < N else k for k, N in zip(order, columns, strict=True)]
    work = [k * max(M, N) for k, M, N in zip(order, rows, columns, strict=True)]
    most, pairs = max(columns), sum((k + 1) // 2 for k in order)
    complex_tensors = max(_before_last(rows, order), _before_last(columns, order))
    tensors = max(width * complex_tensors, _before_last(columns, shares))
    contracted = _contracted(columns) + _contracted(order)
    one = max(tensors, width * sum(work), contracted, most * max(2 * most, THREADS // WARP))
    two = max(tensors, 8 * pairs, 16 * most + 16, 4 * most + max(order), _contracted(columns))
    sizes = [math.prod(columns), one, two, *[math.prod(order)] * 2]
    for k, share, part, N in zip(order, shares, work, columns, strict=True):
        sizes += [*[N] * 10, -(-N // REAL), width * k * k, width * part, width * k * N, share * N]
    return REAL * sum(size + size % 2 for size in sizes)


def _before_last(out: Sequence[int], order: Sequence[int]) -> int:
    """The largest tensor on the way from sizes `order` to `out`, whose most growing axis goes last."""
    return max(math.prod(order), min(math.prod(out) * k // n for k, n in zip(order, out, strict=True)))


def _contracted(sizes: Sequence[int]) -> int:
    """Entries behind each axis, all of them, and those behind the first once more."""
    behind = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    return sum(behind) + behind[0]


def serves(problem: Problem, name: str, step: int) -> bool:
    """Whether `name` of SOURCES takes the problems: on a GPU, fit for shared memory, and there is a compiler."""
    device = problem.y.device
    if device.type != "cuda" or len(problem.factors) > MOST_FACTORS or torch.version.hip:
        return False
    rows = tuple(factor.shape[-2] for factor in problem.factors)
    if state_size(rows, problem.lengths, problem.y.is_complex()) > rooms(device)[0]:
        return False
    return _compiled(name, device, len(rows), problem.y.is_complex(), step)


@lru_cache(None)
def rooms(device: torch.device) -> list[int]:
    """Bytes for a problem's state in each of STAGES; in the first, whatever a block may have."""
    properties = torch.cuda.get_device_properties(device)
    most = getattr(properties, "shared_memory_per_block_optin", properties.shared_memory_per_block)
    whole = properties.shared_memory_per_multiprocessor
    return [most - RESERVED, *(whole // blocks - RESERVED for _, blocks in STAGES[1:])]


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
    """Solve every problem of the call, whose pointers are the device's, on PyTorch's current stream.

    call.iterations are 0 and call.outcome UNFINISHED; call.g and call.sources are overwritten.
    """
    size, room = _size(call), [*rooms(device), 0]
    costs = torch.full((call.problems,), math.inf, dtype=torch.float64, device=device)
    for stage, (threads, _) in enumerate(STAGES):
        if room[stage + 1] < size:  # else all begin in the next
            held = min(size, room[stage])
            _launch("em_solve", device, call, call.step, threads, held, costs, room[stage + 1] // REAL)


def unfold(call: Call, noise: Tensor, numbers: Tensor, neighbours: int) -> None:
    """Unfolded iterations of every problem, which leave their g; the tensors are those of `em_unfolded`."""
    _launch("em_unfolded", noise.device, call, call.step, THREADS, _size(call), noise, numbers, neighbours)


def posterior(call: Call, mean: Tensor, variance: Tensor, residual: Tensor) -> None:
    """Of every problem, under its g: mean and variance (B, N), given as zeros, and ||y - A mean||^2 (B,)."""
    others = mean, variance, residual
    _launch("em_posterior", mean.device, call, FULL_MOMENT, THREADS, _size(call), *others)


def _size(call: Call) -> int:
    rows, columns = tuple(call.rows[: call.factors]), tuple(call.columns[: call.factors])
    return state_size(rows, columns, bool(call.complex_numbers))


def _launch(
    name: str, device: torch.device, call: Call, step: int, threads: int, size: int, *others: Tensor | int
) -> None:
    kernel = _kernel(name, device, call.factors, bool(call.complex_numbers), step)
    assert kernel is not None
    if call.problems:
        kernel(call.problems, threads, size, call, *others)


def _kernel(
    name: str, device: torch.device, factors: int, complex_numbers: bool, step: int
) -> compile.Kernel | None:
    return compile.kernel(SOURCES[name], name, device, **definitions(factors, complex_numbers, step))
