"""The expectation-maximisation loop that every sparse Bayesian estimator of this package runs."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ..algebra import kron_distance, reciprocal, squared_modulus
from ..estimate import Estimate, spread
from ..problem import Problem, pose, values_hidden
from . import compiled
from .kronecker_posterior import kronecker_posterior
from .run import History, Run, at_full_length, join
from .state import State, initial_state, prune, shrink

# Entries of the second moment that are worked on at once, so that they stay in a core's cache.
CACHED_ENTRIES = 2**19
# Entries of the (B, M, N) matrices that an unstructured prior needs: half a gigabyte in double precision.
DENSE_ENTRIES = 2**26


class Posterior(Protocol):
    """What an E-step gives; see `KroneckerPosterior`."""

    def mean(self) -> Tensor: ...
    def variance(self) -> Tensor: ...
    def cost(self) -> Tensor: ...
    def residual(self) -> Tensor: ...
    def degrees_of_freedom(self) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class ExpectationMaximisation(ABC):
    """Sparse Bayesian learning: x ~ N(0, diag(g)), g found by expectation-maximisation.

    Each iteration prunes g, takes the posterior of x under it, and lets `m_step` turn the second moment
    L = variance + |mean|^2 into the next g. It ends when ||g_new - g|| <= tolerance ||g||; a last
    E-step then gives the mean. An estimator is its `m_step`.

    pruning: entries below this ratio of their factor's largest are dropped for good (0: none); a number or
        one for each factor. floor: so are entries below this value.
    tolerance: None runs exactly `max_iterations`, with no step that depends on values: then the result is
        differentiable in every argument and works under `torch.func.vmap`.
    scaled_start: begin at the power of x that y suggests, ||y||^2 / prod ||A_i||_F^2 an entry, not at one. Large
        or badly scaled problems then need far fewer iterations, and scaling y and s2 alike only scales the mean.
    """

    pruning: float | tuple[float, ...] = 0.0
    floor: float = 0.0
    max_iterations: int = 150
    tolerance: float | None = 1e-4
    scaled_start: bool = False

    structured: ClassVar[bool] = True

    def __call__(
        self,
        factors: Sequence[Tensor],
        y: Tensor,
        noise_variance: Tensor | float | None = None,
        *,
        history: bool = False,
        compact: bool = False,
    ) -> Estimate:
        """Estimate x from y = (A_1 kron ... kron A_I) x + noise.

        Args:
            factors: (..., M_i, N_i) matrices, real or complex, single or double precision.
            y: (..., M_1 ... M_I), the first factor slowest, of the factors' dtype.
            noise_variance: broadcasts to the batch; None estimates it.
            history: record the cost, change, noise variance and prior variances of every iteration.
            compact: return only the kept entries, with their indices in `support`.

        Raises:
            ValueError: an argument has a wrong shape, a NaN, or a negative variance; the message names it.
        """
        problem = pose(factors, y, noise_variance)
        ratios = self._ratios(len(problem.factors))
        with torch.inference_mode(untracked(problem)):
            run = self._run_compiled(problem, ratios, history)
            run = run or self._run_in_parts(problem, ratios, history)
        return self._finish(problem, run.as_tensors(), compact)

    @abstractmethod
    def m_step(self, second_moment: Tensor, state: State) -> tuple[Tensor, ...]:
        """The next g from L (B, n_1 ... n_I) and the current state."""

    def compiled_step(self, factors: int) -> compiled.Step | None:
        """This M-step, for so many factors, as `sbl.em.compiled` knows it; None where it does not."""
        return None

    def initial(self, problem: Problem) -> tuple[Tensor, ...]:
        """Ones, of unit norm but for the last factor, which carries the product of the norms."""
        B, real = problem.y.shape[0], problem.y.real.dtype
        g = [torch.ones(B, n, dtype=real, device=problem.y.device) for n in problem.lengths]
        return normalise(g)

    def start(self, problem: Problem) -> tuple[Tensor, ...]:
        """The first g: `initial`, at the data's scale where `scaled_start`."""
        g = self.initial(problem)
        return (*g[:-1], g[-1] * suggested_power(problem)) if self.scaled_start else g

    def posterior(self, state: State) -> Posterior:
        """The E-step."""
        return kronecker_posterior(state)

    def _ratios(self, count: int) -> tuple[float, ...]:
        count = count if self.structured else 1
        ratios = self.pruning if isinstance(self.pruning, tuple) else (self.pruning,) * count
        if len(ratios) != count:
            raise ValueError(f"pruning has {len(ratios)} ratios for {count} factors")
        return ratios

    def _run_compiled(self, problem: Problem, ratios: tuple[float, ...], history: bool) -> Run | None:
        """By `sbl.em.compiled`; None where it does not serve, as in a subclass, whose M-step may be another."""
        own = "compiled_step" in vars(type(self))
        if not own or self.tolerance is None or not untracked(problem) or not compiled.serves(problem):
            return None
        step = self.compiled_step(len(problem.factors))
        assert step is not None
        stop = compiled.Stop(ratios, self.floor, self.max_iterations, self.tolerance)
        state = initial_state(problem, self.start(problem))
        return compiled.solve(state, step, stop, problem.noise_variance is None, history)

    def _run_in_parts(self, problem: Problem, ratios: tuple[float, ...], history: bool) -> Run:
        size = total = problem.y.shape[0]
        if problem.y.device.type == "cpu" and self.tolerance is not None:
            N = math.prod(problem.lengths)
            size = CACHED_ENTRIES // N if self.structured else DENSE_ENTRIES // (N * problem.y.shape[-1])
        size = max(1, size)
        return join(
            [
                self._run(problem.pick(slice(start, start + size)), ratios, history)
                for start in range(0, max(1, total), size)
            ]
        )

    def _run(self, problem: Problem, ratios: tuple[float, ...], history: bool) -> Run:
        state = initial_state(problem, self.start(problem))
        record = History(problem.y, self.max_iterations) if history else None
        runs = self._loop(state, ratios, problem.noise_variance is None, record)
        return join(runs).in_order(record)

    def _loop(
        self, state: State, ratios: tuple[float, ...], noise_unknown: bool, record: History | None
    ) -> list[Run]:
        lengths = tuple(g.shape[-1] for g in state.g)
        alive = torch.arange(state.y.shape[0], device=state.y.device)
        done: list[Run] = []
        for iteration in range(1, self.max_iterations + 1):
            if alive.numel() == 0:
                break
            state = prune(state, ratios, self.floor)
            if self.structured and self.tolerance is not None:
                state = shrink(state)
            state, change, posterior = self._iterate(state, noise_unknown)
            if record is not None:
                g = at_full_length(state, lengths)
                record.add(alive, posterior.cost(), change, state.noise_variance, g)
            change = change.detach()
            if self.tolerance is None or float(change.min()) > self.tolerance:
                continue
            if float(change.max()) <= self.tolerance:
                return [*done, Run.of(state, lengths, alive, iteration, True)]
            stopped = change <= self.tolerance
            done.append(Run.of(state.take(stopped), lengths, alive[stopped], iteration, True))
            state, alive = state.take(~stopped), alive[~stopped]
        return [*done, Run.of(state, lengths, alive, self.max_iterations, False)]

    def _iterate(self, state: State, noise_unknown: bool) -> tuple[State, Tensor, Posterior]:
        posterior = self.posterior(state)
        second_moment = posterior.variance() + squared_modulus(posterior.mean())
        proposal = self.m_step(second_moment, state)
        g = proposal
        if not state.dense:
            g = tuple(new * (old > 0) for new, old in zip(proposal, state.g, strict=True))
        change = kron_distance(g, state.g)
        if noise_unknown:
            explained = state.noise_variance * posterior.degrees_of_freedom()
            noise = (posterior.residual() + explained) / state.y.shape[-1]
            state = state._replace(noise_variance=noise)
        return state._replace(g=g, dense=False), change, posterior

    def _finish(self, problem: Problem, run: Run, compact: bool) -> Estimate:
        full = initial_state(problem, run.g)._replace(noise_variance=run.noise_variance)
        state = full
        if self.structured and self.tolerance is not None:
            state = shrink(full)
        posterior = self.posterior(state)
        mean, variance, lengths = posterior.mean(), posterior.variance(), problem.lengths
        if compact:
            lengths = tuple(index.shape[-1] for index in state.positions)
        elif state is not full:
            mean, variance = (spread(part, state.positions, lengths) for part in (mean, variance))
        batch = problem.batch

        def shaped(flat: Tensor | None) -> Tensor | None:
            return None if flat is None else flat.reshape(*batch, *flat.shape[1:])

        cost, change, noise, g = run.path or (None, None, None, None)

        return Estimate(
            mean=mean.reshape(*batch, *lengths),
            variance=variance.reshape(*batch, *lengths),
            hyperparameters=tuple(g.reshape(*batch, *g.shape[1:]) for g in run.g),
            noise_variance=run.noise_variance.reshape(batch),
            iterations=run.iterations.reshape(batch),
            converged=run.converged.reshape(batch),
            cost=shaped(cost),
            change=shaped(change),
            noise_variance_path=shaped(noise),
            hyperparameter_path=None
            if g is None
            else tuple(g_i.reshape(*batch, *g_i.shape[1:]) for g_i in g),
            support=tuple(i.reshape(*batch, *i.shape[1:]) for i in state.positions) if compact else None,
        )


def untracked(problem: Problem) -> bool:
    """Whether no gradient can be asked for, so that the loop may run in inference mode."""
    if torch.compiler.is_compiling() or values_hidden():
        return False
    tensors = (*problem.factors, problem.y, problem.noise_variance)
    return not (torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors))


def suggested_power(problem: Problem) -> Tensor:
    """||y||^2 / prod ||A_i||_F^2, the power of an entry of x if all had the same: (B, 1)."""
    power = squared_modulus(problem.y).sum(-1, keepdim=True)
    for factor in problem.factors:
        power = power * reciprocal(squared_modulus(factor).sum((-2, -1))).unsqueeze(-1)
    return power


def normalise(g: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Scale all (B, n_i) vectors but the last to unit norm and the last by the product of the norms.

    >>> normalise([torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0]])])
    (tensor([[0.6000, 0.8000]]), tensor([[5.]]))
    """
    *others, last = g
    scaled = []
    for v in others:
        norm = torch.linalg.vector_norm(v, dim=-1, keepdim=True)
        scaled.append(v * reciprocal(norm))
        last = last * norm
    return (*scaled, last)
