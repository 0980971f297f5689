"""The expectation-maximisation loop that every sparse Bayesian estimator of this package runs."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from ...kernels import kron_matvec
from ..algebra import kron_distance, reciprocal, squared_modulus
from ..estimate import Ended, Estimate, spread
from ..problem import Problem, pose, values_hidden, with_prior
from . import compiled
from .functional import Functionals
from .kronecker_posterior import LARGE, KroneckerPosterior, kronecker_posterior
from .run import History, Moments, Run, at_full_length, join
from .state import Pruning, State, initial_state, keep, prune, shrink
from .units import Units, equalise

# Entries of the second moment that are worked on at once, so that they stay in a core's cache.
CACHED_ENTRIES = 2**19
# Entries of the (B, M, N) matrices that an unstructured prior needs: half a gigabyte in double precision.
DENSE_ENTRIES = 2**26
# The rise of the cost, for each measurement, above which it does not support an estimate.
RISE = 1e-6
# The share of y's power below which a noise variance makes such rises of the rounding of double precision.
ROUNDED = 1e-9
# The share of y's power up to which a noise variance counts as none, where entries are dropped.
FAINT = 1e-12
# The share of the noise's energy, for a `negligible` of one, that no entry is kept for.
UNMISSED = 1 / 2000


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

    It works on columns of norm one, and on x in the unit that makes ones the power that y suggests: a start at
    ones, `floor` and whatever else is not a ratio are relative to the data's scale, and scaling y and the noise
    alike only scales the mean. Small problems on a CPU go through double precision whatever the dtype.

    pruning: entries below this ratio of their factor's largest are dropped for good (0: none), a number or one for
        each factor, unless g_i[n] prod_{j != i} max g_j >= negligible s2 max(ln N, M / 2000), with 2 ln N for a
        real y, where they count against the noise: s2 ln N is what it makes of the largest of N columns of norm
        one, and where M is large, a thousandth of its energy M s2 is not missed. Without noise the ratios stand
        alone. None: what is usual for the estimator. floor: entries below this value are dropped as well.
    tolerance: None runs exactly `max_iterations`, with no step that depends on values: then the result is
        differentiable in every argument and works under `torch.func.vmap`.
    as_published: as the papers have it: columns and data as they are, a start at ones, absolute constants. Where
        columns differ much in norm, or the data's scale is far from one, that ends far from the best estimate.
    scaled_start: of `as_published`: begin at the power of x that y suggests, ||y||^2 / prod ||A_i||_F^2 an entry.
    """

    pruning: float | tuple[float, ...] | None = 0.0
    negligible: float = 2.0
    floor: float = 0.0
    max_iterations: int = 150
    tolerance: float | None = 1e-4
    as_published: bool = False
    scaled_start: bool = False

    structured: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.max_iterations < 1:
            raise ValueError(f"max_iterations must be at least 1, got {self.max_iterations}")
        if self.tolerance is not None and not self.tolerance >= 0:
            raise ValueError(f"tolerance must not be negative, got {self.tolerance}")
        if not isinstance(self.pruning, float | int | tuple | None):
            raise ValueError(f"pruning must be a number or a tuple of numbers, got {self.pruning!r}")

    def __call__(
        self,
        factors: Sequence[Tensor],
        y: Tensor,
        noise_variance: Tensor | float | None = None,
        *,
        prior: Sequence[Tensor] | None = None,
        history: bool = False,
        compact: bool = False,
    ) -> Estimate:
        """Estimate x from y = (A_1 kron ... kron A_I) x + noise.

        Args:
            factors: (..., M_i, N_i) matrices, real or complex, single or double precision.
            y: (..., M_1 ... M_I), the first factor slowest, of the factors' dtype.
            noise_variance: broadcasts to the batch; None estimates it.
            prior: prior variances to start at, as `Estimate.hyperparameters` has them: (..., N_i) for each factor,
                or one (..., N) for an unstructured prior; entries of zero stay zero. None starts at `initial`.
            history: record the cost, change, noise variance and prior variances of every iteration.
            compact: return only the kept entries, with their indices in `support`: of Kronecker-structured priors
                with a tolerance.

        Raises:
            ValueError: an argument has a wrong shape, a NaN, or a negative variance, or `compact` is asked for
                where no entries are taken out; the message names it.
        """
        if compact and not (self.structured and self.tolerance is not None):
            raise ValueError("compact needs a Kronecker-structured prior and a tolerance")
        problem = pose(factors, y, noise_variance)
        if prior is not None:
            lengths = problem.lengths if self.structured else (math.prod(problem.lengths),)
            problem = with_prior(problem, prior, lengths)
        pruning = self._pruning(problem)
        problem, units = self.in_units(problem)
        with torch.inference_mode(untracked(problem)):
            run = self._run_compiled(problem, pruning, history)
            run = run or self._run_in_parts(problem, pruning, history)
        return self._finish(problem, units, run.as_tensors(), compact)

    def in_units(self, problem: Problem) -> tuple[Problem, Units | None]:
        """The problem as this estimator works on it: equalised, but as it is where `as_published`."""
        return (problem, None) if self.as_published else equalise(problem, not self.structured)

    @abstractmethod
    def m_step(self, second_moment: Tensor, state: State) -> tuple[Tensor, ...]:
        """The next g from L (B, n_1 ... n_I) and the current state."""

    def compiled_step(self, factors: int) -> compiled.Step | None:
        """This M-step, for so many factors, as `sbl.em.compiled` knows it; None where it does not."""
        return None

    def usual_pruning(self) -> float:
        """The ratio of entries that are dropped where `pruning` is None."""
        return 0.0

    def initial(self, problem: Problem) -> tuple[Tensor, ...]:
        """Ones, of unit norm but for the last factor, which carries the product of the norms."""
        B, real = problem.y.shape[0], problem.y.real.dtype
        g = [torch.ones(B, n, dtype=real, device=problem.y.device) for n in problem.lengths]
        return normalise(g)

    def start(self, problem: Problem) -> tuple[Tensor, ...]:
        """The first g: the prior given, else `initial`, at the data's scale but for the published ones."""
        if problem.prior is not None:
            return problem.prior
        return self.scaled(problem, self.initial(problem))

    def begin(self, problem: Problem) -> State:
        """Where the loop starts."""
        return initial_state(problem, self.start(problem))

    def scaled(self, problem: Problem, g: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """g times the power of x that y suggests, which is zero where y is; g as it is for a start at ones."""
        if self.as_published and not self.scaled_start:
            return g
        return (*g[:-1], g[-1] * suggested_power(problem))

    def pruned(self, state: State, pruning: Pruning) -> State:
        """The state without the entries that are dropped."""
        return prune(state, pruning)

    def posterior(self, state: State) -> Posterior:
        """The E-step."""
        return kronecker_posterior(state)

    def moments(self, posterior: Posterior) -> tuple[Tensor, ...]:
        """What `maximise` needs of the posterior: the second moment L."""
        return (posterior.variance() + squared_modulus(posterior.mean()),)

    def maximise(self, moments: tuple[Tensor, ...], state: State) -> State:
        """The state with the next g."""
        (second_moment,) = moments
        return state._replace(g=self.m_step(second_moment, state))

    def next_noise(self, posterior: Posterior, state: State) -> Tensor:
        """The next estimate of an unknown noise variance: (B,)."""
        explained = state.noise_variance * posterior.degrees_of_freedom()
        return (posterior.residual() + explained) / state.y.shape[-1]

    def _pruning(self, problem: Problem) -> Pruning:
        count = len(problem.factors) if self.structured else 1
        pruning = self.usual_pruning() if self.pruning is None else self.pruning
        ratios = pruning if isinstance(pruning, tuple) else (pruning,) * count
        if len(ratios) != count:
            raise ValueError(f"pruning has {len(ratios)} ratios for {count} factors")
        if self.as_published:
            return Pruning(ratios, math.inf, 0.0, self.floor)
        N, M = math.prod(problem.lengths), problem.y.shape[-1]
        largest = math.log(N) * (1 if problem.y.is_complex() else 2)
        negligible = self.negligible * max(largest, UNMISSED * M)
        return Pruning(ratios, negligible, FAINT * N / M, self.floor)

    def _run_compiled(self, problem: Problem, pruning: Pruning, history: bool) -> Run | None:
        """By `sbl.em.compiled`; None where it does not serve, as in a subclass, whose M-step may be another."""
        own = "compiled_step" in vars(type(self))
        if not own or self.tolerance is None or not untracked(problem):
            return None
        step = self.compiled_step(len(problem.factors))
        assert step is not None
        if not compiled.serves(problem, step.kind):
            return None
        stop = compiled.Stop(pruning, self.max_iterations, self.tolerance)
        return compiled.solve(self.begin(problem), step, stop, problem.noise_variance is None, history)

    def _run_in_parts(self, problem: Problem, pruning: Pruning, history: bool) -> Run:
        size = total = problem.y.shape[0]
        if problem.y.device.type == "cpu" and self.tolerance is not None:
            N = math.prod(problem.lengths)
            size = CACHED_ENTRIES // N if self.structured else DENSE_ENTRIES // (N * problem.y.shape[-1])
        size = max(1, size)
        return join(
            [
                self._run(problem.pick(slice(start, start + size)), pruning, history)
                for start in range(0, max(1, total), size)
            ]
        )

    def _run(self, problem: Problem, pruning: Pruning, history: bool) -> Run:
        record = History(problem.y, self.max_iterations) if history else None
        runs = self._loop(self.begin(problem), pruning, problem.noise_variance is None, record)
        return join(runs).in_order(record)

    def _loop(self, state: State, pruning: Pruning, noise_unknown: bool, record: History | None) -> list[Run]:
        lengths = tuple(g.shape[-1] for g in state.g)
        alive = torch.arange(state.y.shape[0], device=state.y.device)
        lowest = torch.full_like(state.noise_variance, math.inf)
        done: list[Run] = []
        for iteration in range(1, self.max_iterations + 1):
            if alive.numel() == 0:
                break
            state = self.pruned(state, pruning)
            if self.structured and self.tolerance is not None:
                state = shrink(state)
            state, change, posterior = self._iterate(state, noise_unknown)
            if record is not None:
                g = at_full_length(state, lengths)
                record.add(alive, posterior.cost(), change, state.noise_variance, g)
            if self.tolerance is None:
                continue
            cost = posterior.cost()
            lowest = torch.minimum(lowest, cost)
            stopped = change <= self.tolerance
            count = int(stopped.sum())
            if count == 0:
                continue
            state, ended = self._end(state, cost - lowest)
            if count == len(alive):
                return [*done, Run.of(state, lengths, alive, iteration, ended)]
            done.append(Run.of(state.take(stopped), lengths, alive[stopped], iteration, ended[stopped]))
            state, alive, lowest = state.take(~stopped), alive[~stopped], lowest[~stopped]
        ended = torch.full_like(alive, Ended.ITERATIONS)
        return [*done, Run.of(state, lengths, alive, self.max_iterations, ended)]

    def _iterate(self, state: State, noise_unknown: bool) -> tuple[State, Tensor, Posterior]:
        posterior = self.posterior(state)
        new = self.maximise(self.moments(posterior), state)
        if not state.dense:
            g = tuple(new * (old > 0) for new, old in zip(new.g, state.g, strict=True))
            new = keep(new, g)
        change = kron_distance(new.g, state.g)
        if noise_unknown:
            new = new._replace(noise_variance=self.next_noise(posterior, state))
        return new._replace(dense=False), change, posterior

    def _end(self, state: State, rise: Tensor) -> tuple[State, Tensor]:
        """The `Ended` of each member, were it to stop here, and the state with zeros for what is not finite."""
        finite = torch.stack([g.isfinite().all(-1) for g in state.g]).all(0)
        empty = torch.stack([g.amax(-1) <= 0 for g in state.g]).any(0)
        rose = rise > RISE * state.y.shape[-1]
        ended = torch.where(rose, Ended.COST_ROSE, Ended.SETTLED)
        ended = ended.masked_fill(empty, Ended.PRUNED).masked_fill(~finite, Ended.NOT_FINITE)
        g = tuple(torch.where(finite.unsqueeze(-1), v, 0) for v in state.g)
        return keep(state, g), ended

    def _finish(self, problem: Problem, units: Units | None, run: Run, compact: bool) -> Estimate:
        full = initial_state(problem, run.g)._replace(noise_variance=run.noise_variance)
        state, posterior, moments = full, None, run.moments
        if moments is None or compact:
            if self.structured and self.tolerance is not None:
                state = shrink(full)
            posterior = self.posterior(state)
            moments = Moments(posterior.mean(), posterior.variance(), posterior.residual())
        mean, variance, residual = moments
        residual = direct_where_small(residual, state, mean)
        run = told(run, problem.y)
        lengths, measurements = problem.lengths, problem.y.shape[-1]
        misfit = residual * reciprocal(state.noise_variance) / measurements
        if units is not None:
            mean, variance = units.moments(mean, variance, state.positions)
            run = units.run(run, measurements)
        if compact:
            lengths = tuple(index.shape[-1] for index in state.positions)
        elif state is not full:
            mean, variance = (spread(part, state.positions, lengths) for part in (mean, variance))
        batch = problem.batch
        functionals = None
        if posterior is None or isinstance(posterior, KroneckerPosterior):
            dtype = problem.y.dtype if units is None else units.dtype
            functionals = Functionals(state, posterior, units, batch, problem.lengths, dtype)

        def shaped(flat: Tensor | None) -> Tensor | None:
            return None if flat is None else flat.reshape(*batch, *flat.shape[1:])

        cost, change, noise, g = run.path or (None, None, None, None)

        return Estimate(
            mean=mean.reshape(*batch, *lengths),
            variance=variance.reshape(*batch, *lengths),
            hyperparameters=tuple(g.reshape(*batch, *g.shape[1:]) for g in run.g),
            noise_variance=run.noise_variance.reshape(batch),
            iterations=run.iterations.reshape(batch),
            ended=run.ended.reshape(batch),
            residual_to_noise=misfit.to(variance.dtype).reshape(batch),
            cost=shaped(cost),
            change=shaped(change),
            noise_variance_path=shaped(noise),
            hyperparameter_path=None
            if g is None
            else tuple(g_i.reshape(*batch, *g_i.shape[1:]) for g_i in g),
            support=tuple(i.reshape(*batch, *i.shape[1:]) for i in state.positions) if compact else None,
            functionals=functionals,
        )


def direct_where_small(residual: Tensor, state: State, mean: Tensor) -> Tensor:
    """||y - A mean||^2 (B,), from the mean itself where a difference of energies has no digits of it left."""
    small = residual < LARGE * squared_modulus(state.y).sum(-1)
    if values_hidden() or not small.any():
        return residual
    left = state.y - kron_matvec(state.factors, mean.flatten(1).to(state.y.dtype))
    return torch.where(small, squared_modulus(left).sum(-1), residual)


def told(run: Run, y: Tensor) -> Run:
    """The run without the rises of its cost that cannot be told from rounding."""
    power = squared_modulus(y).mean(-1)
    rounded = (run.noise_variance > 0) & (run.noise_variance < ROUNDED * power)
    settled = (run.ended == Ended.COST_ROSE) & rounded
    return run._replace(ended=run.ended.masked_fill(settled, Ended.SETTLED))


def untracked(problem: Problem) -> bool:
    """Whether no gradient can be asked for, so that the loop may run in inference mode."""
    if torch.compiler.is_compiling() or values_hidden():
        return False
    tensors = (*problem.factors, problem.y, problem.noise_variance, *(problem.prior or ()))
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
