"""The EM loop for small problems on a CPU, in C: each problem on a core of its own, at its own pruned size.

PyTorch takes longer to be called on matrices of order 20 than their arithmetic takes. `em.c` has the equations of
`sbl.em.loop`, `sbl.em.kronecker_posterior` and the estimators' M-steps, in double precision whatever the dtype.
Where it cannot be compiled, and for what it does not serve, the loop in PyTorch gives the same.
"""

import ctypes
import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from ...kernels.native import compiler
from ..estimate import Ended
from ..problem import Problem
from .block import solve as block
from .call import MOST_FACTORS, Call, Doubles, Integers, Kind, Pointers
from .run import Moments, Path, Run
from .state import Pruning, State
from .units import SMALL

SOURCE = pathlib.Path(__file__).with_name("em.c")
Results = TypeVar("Results")
LARGEST_ORDER = 512  # of an eigendecomposition, up to which LAPACK's blocking gains nothing


class Step(NamedTuple):
    """An M-step and its settings: of sweeps as in `sbl.em.sweep`, of coupling as in `PCKroSBL`."""

    kind: Kind
    sweeps: int = 1
    inner_tolerance: float = 0.0
    relative: bool = False
    divergence: float = math.inf
    coupled: tuple[bool, ...] = ()
    beta: float = 0.0
    offset: float = 0.0


class Stop(NamedTuple):
    """When entries and iterations end; see `ExpectationMaximisation`."""

    pruning: Pruning
    max_iterations: int
    tolerance: float


def serves(problem: Problem, step: Kind) -> bool:
    """Whether the problems are small and there is a compiler for where they are."""
    if problem.y.device.type == "cuda":
        return block.serves(problem, "em_solve", step)
    rows = [factor.shape[-2] for factor in problem.factors]
    order = max(min(M, N) for M, N in zip(rows, problem.lengths, strict=True))
    small = max(problem.y.shape[-1], math.prod(problem.lengths)) <= SMALL and order <= LARGEST_ORDER
    fits = small and len(rows) <= MOST_FACTORS and problem.y.device.type == "cpu"
    return fits and compiler.load(SOURCE) is not None


def solve(state: State, step: Step, stop: Stop, noise_unknown: bool, history: bool) -> Run:
    """Run EM on every problem of `state`, from its g, until g settles, and the last E-step.

    With its `Path` if asked for `history`.

    Raises:
        MemoryError: a core's work does not fit into memory.
    """
    device = state.y.device
    call, held = _posed(state)
    sources = [_own(s) for s in state.sources]
    iterations = torch.zeros(call.problems, dtype=torch.int64, device=device)
    ended = torch.full_like(iterations, Ended.ITERATIONS)
    path = _blank_path(state, stop.max_iterations) if history else None
    call.noise_unknown = noise_unknown
    call.coupled = Integers(*step.coupled)
    call.sources = _pointers(sources)
    call.ratios = Doubles(*stop.pruning.ratios)
    call.negligible, call.faint, call.floor = stop.pruning[1:]
    call.tolerance, call.max_iterations = stop.tolerance, stop.max_iterations
    call.step, call.sweeps, call.relative = step.kind, step.sweeps, step.relative
    call.inner_tolerance, call.divergence = step.inner_tolerance, step.divergence
    call.beta, call.offset = step.beta, step.offset
    call.iterations, call.outcome = iterations.data_ptr(), ended.data_ptr()
    if path is not None:
        call.cost, call.change, call.noise_path = (table.data_ptr() for table in path[:3])
        call.g_path = _pointers(path.g)
    if device.type == "cuda":
        block.run(call, device)
        moments = _moments(call, held)
    else:
        library = compiler.load(SOURCE)
        assert library is not None
        moments = _blank_moments(held)
        if library.em_solve(ctypes.byref(call), *map(ctypes.c_void_p, (x.data_ptr() for x in moments))):
            raise MemoryError(f"a problem of {state.y.shape[-1]} measurements does not fit into memory")
    members = torch.arange(call.problems, device=device)
    run = Run(members, held.g, held.noise_variance, iterations, ended, path, moments)
    return _in_dtype(run, state.y.dtype)


def unfold(
    state: State, step: Step, noise: Sequence[Tensor], numbers: Tensor, neighbours: int
) -> tuple[tuple[Tensor, ...], Moments]:
    """g after the iterations of `UnfoldedKroSBL`, and the posterior's moments, of problems that a GPU serves.

    noise: the E-steps' levels (B,), the last E-step's too. numbers: see unfolded.cu; its rows are the iterations.
    """
    call, held = _posed(state)
    call.max_iterations, call.step, call.sweeps = len(numbers), step.kind, step.sweeps
    call.inner_tolerance, call.divergence, call.relative = (
        step.inner_tolerance,
        step.divergence,
        step.relative,
    )
    levels = torch.stack(list(noise), -1).double()
    numbers = numbers.to(levels).contiguous()
    block.unfold(call, levels[:, :-1].contiguous(), numbers, neighbours)
    held.noise_variance.copy_(levels[:, -1])
    return _in_dtype((held.g, _moments(call, held)), state.y.dtype)


def _moments(call: Call, state: State) -> Moments:
    """Those of the posterior under the call's g, by one launch on a GPU; `state` as `_posed` holds it."""
    moments = _blank_moments(state)
    block.posterior(call, *moments)
    return moments


def _blank_moments(state: State) -> Moments:
    size = len(state.y), math.prod(v.shape[-1] for v in state.g)
    mean, variance = state.y.new_zeros(size), state.noise_variance.new_zeros(size)
    return Moments(mean, variance, torch.empty_like(state.noise_variance))


def _posed(state: State) -> tuple[Call, State]:
    """What the loops are told of the problems, and the tensors in double precision that this points to."""
    factors, y = tuple(map(_double, state.factors)), _double(state.y)
    noise = state.noise_variance.double().clone()
    g = tuple(map(_own, state.g))
    call = Call(
        problems=y.shape[0],
        factors=len(factors),
        complex_numbers=y.is_complex(),
        rows=Integers(*(factor.shape[-2] for factor in factors)),
        columns=Integers(*(factor.shape[-1] for factor in factors)),
        shared=Integers(*(factor.shape[0] == 1 for factor in factors)),
        matrices=_pointers(factors),
        y=y.data_ptr(),
        noise_variance=noise.data_ptr(),
        g=_pointers(g),
    )
    return call, State(factors, y, noise, g, state.positions)


def _own(g: Tensor) -> Tensor:
    """A copy to be overwritten."""
    return g.double().clone(memory_format=torch.contiguous_format)


def _double(tensor: Tensor) -> Tensor:
    wide = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    return wide.detach().resolve_conj().contiguous()


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return Pointers(*(tensor.data_ptr() for tensor in tensors))


def _blank_path(state: State, iterations: int) -> Path:
    def blank(*sizes: int) -> Tensor:
        shape = (state.y.shape[0], iterations, *sizes)
        return torch.full(shape, math.nan, dtype=torch.float64, device=state.y.device)

    return Path(blank(), blank(), blank(), tuple(blank(v.shape[-1]) for v in state.g))


def _in_dtype(results: Results, dtype: torch.dtype) -> Results:
    if dtype.to_real() == torch.float64:
        return results

    def cast(x: Tensor) -> Tensor:
        return x.to(dtype if x.is_complex() else dtype.to_real() if x.is_floating_point() else x.dtype)

    return tree_map_only(Tensor, cast, results)
