"""The paper's two experiments, trial by trial: draw, estimate, score.

Every trial is drawn from a generator of its own, seeded by (seed, trial), so that no number depends on how
trials are batched or shared between processes.
Source: He and Joseph, IEEE Trans. Signal Processing 2024, section V.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..algebra import squared_modulus
from ..baselines.em_vamp import EMVAMP
from ..baselines.lasso import LASSO
from ..baselines.least_squares import LeastSquares
from ..em.loop import ExpectationMaximisation
from ..estimate import Estimate
from ..estimators.am_krosbl import AMKroSBL
from ..estimators.classic_sbl import ClassicSBL
from ..estimators.decomposed_sbl import DecomposedSBL
from ..estimators.kronecker_omp import KroneckerOMP
from ..estimators.ksbl import KSBL
from ..estimators.omp import OMP
from ..estimators.pc_krosbl import PCKroSBL
from ..estimators.pc_sbl import PCSBL
from ..estimators.svd_krosbl import SVDKroSBL
from ..systems.irs_mimo import IRSMIMO, Channel, Rays, Training, array_size
from ..systems.observation import observe
from ..systems.synthetic import SyntheticProblem, draw_synthetic
from ..training.weights import load_estimator
from .metrics import (
    above_rounding,
    channel_nmse,
    mean_ratio,
    nmse,
    squared_error,
    support_recovery_rate,
    symbol_error_rate,
)
from .references import (
    BOUND,
    IRS_REFERENCES,
    SYNTHETIC_REFERENCES,
    irs_bound,
    irs_reference,
    synthetic_bound,
    synthetic_reference,
)
from .seeds import drawn_once, pieces, trial_generator

Estimator = Callable[..., Estimate]
Scores = dict[str, list[float]]
Parts = TypeVar("Parts")

_BASELINES: dict[str, Estimator] = {"LS": LeastSquares(), "VAMP": EMVAMP(), "LASSO": LASSO()}
SYNTHETIC_ESTIMATORS: dict[str, Estimator] = {
    "SVD": SVDKroSBL(),
    "AM": AMKroSBL(),
    "KSBL": KSBL(),
    "PC0.8": PCKroSBL(0.8),
    "PC0.5": PCKroSBL(0.5),
    "classic": ClassicSBL(),
    "PCSBL": PCSBL(),
    "OMP": OMP(),
    "KOMP": KroneckerOMP(),
    **_BASELINES,
}
# Entries below these shares are dropped in the factors of the IRS, the mobile and the base station.
_IRS_PRUNING: dict[str, Any] = {"pruning": (1e-2, 1e-1, 1e-2)}
# Coupled variances fit as little as a sweep gives them, and what blocks lend each other is dropped earlier.
_PC_IRS: dict[str, Any] = {"coupled": (0, 2), "pruning": (2e-2, 1e-1, 2e-2), "sweeps": 1}
IRS_ESTIMATORS: dict[str, Estimator] = {
    "SVD": SVDKroSBL(**_IRS_PRUNING),
    "AM": AMKroSBL(**_IRS_PRUNING),
    "KSBL": KSBL(**_IRS_PRUNING),
    "PC0.8": PCKroSBL(0.8, **_PC_IRS),
    "PC0.5": PCKroSBL(0.5, **_PC_IRS),
    "classic": ClassicSBL(pruning=1e-4),
    "PCSBL": PCSBL(),
    "OMP": OMP(),
    "KOMP": KroneckerOMP(),
    "Decomposed": DecomposedSBL(),
    **_BASELINES,
}
# The settings of the paper, for the published form.
_PC_PUBLISHED: dict[str, Any] = {"coupled": (0, 2), **_IRS_PRUNING}
_IRS_PUBLISHED: dict[str, ExpectationMaximisation] = {
    "SVD": SVDKroSBL(pruning=0.0, floor=1e-4),
    "AM": AMKroSBL(pruning=(1e-2, 1e-1, 1e-3), floor=1e-4, inner_tolerance=1e-4, inner_relative=True),
    "KSBL": KSBL(pruning=(1e-2, 1e-1, 1e-3), floor=1e-4),
    "PC0.8": PCKroSBL(0.8, **_PC_PUBLISHED),
    "PC0.5": PCKroSBL(0.5, **_PC_PUBLISHED),
}
UNFOLDED = "Unfolded:"
# From this SNR on, SVD-KroSBL as published prunes in the IRS experiment.
SVD_PRUNES_FROM_DB = 25.0


def irs_estimator(name: str, as_published: bool = False, snr_db: float = 0.0) -> Estimator:
    """The estimator called `name` in the IRS experiment; Unfolded:PATH is the one of a weights file.

    as_published: with the paper's settings at that SNR and in its form, where the estimator has one.

    Raises ValueError where there is none of that name, and what `load_estimator` raises for the file.
    """
    if name.startswith(UNFOLDED):
        return load_estimator(name.removeprefix(UNFOLDED))
    if name not in IRS_ESTIMATORS:
        known = ", ".join([*IRS_ESTIMATORS, *IRS_REFERENCES])
        raise ValueError(f"no estimator {name}; there are {known} and {UNFOLDED}FILE")
    if not as_published:
        return IRS_ESTIMATORS[name]
    if name == "SVD" and snr_db >= SVD_PRUNES_FROM_DB:
        return SVDKroSBL(floor=1e-4, as_published=True)
    return published(_IRS_PUBLISHED.get(name, IRS_ESTIMATORS[name]))


def published(estimator: Estimator) -> Estimator:
    """The estimator in its published form; itself where it has no other.

    >>> published(SVDKroSBL()).as_published, published(OMP())
    (True, OMP(sparsity=None))
    """
    if isinstance(estimator, ExpectationMaximisation):
        return replace(estimator, as_published=True)
    return estimator


@dataclass(frozen=True)
class SyntheticExperiment:
    """Random Kronecker-sparse problems; see `sbl.systems.synthetic`. `known_noise=False` hides the noise variance.

    `as_published` takes the estimators in their published form.
    Trials are drawn on the CPU and solved on `device`.

    >>> experiment = SyntheticExperiment(rows=(4, 5), columns=(6, 6), sparsity=2)
    >>> [scores] = experiment.run("OLS", [20.0], seed=0, trials=range(2))
    >>> sorted(scores)
    ['error_energy', 'iterations', 'nmse', 'reference_energy', 'seconds', 'srr']
    """

    rows: tuple[int, ...] = (8, 12, 15)
    columns: tuple[int, ...] = (15, 15, 15)
    sparsity: int = 3
    known_noise: bool = True
    device: str = "cpu"
    as_published: bool = False

    @property
    def unknowns(self) -> int:
        return math.prod(self.columns)

    def drawn(self, seed: int, trials: range) -> SyntheticProblem:
        """The trials' problems; those of the last pieces are kept."""
        parts = [_draw_synthetic_trials(self, seed, piece) for piece in pieces(trials)]
        return _joined(parts)

    def is_drawn(self, seed: int, trials: range) -> bool:
        return all(_draw_synthetic_trials.done(self, seed, piece) for piece in pieces(trials))

    def rehearse(self) -> None:
        """Compute a score, whose kernels a GPU loads or compiles when they are first asked for."""
        x = torch.ones(self.columns, dtype=torch.float64, device=self.device)
        support_recovery_rate(x, x, len(self.columns))

    def run(self, estimator: str, snrs_db: Sequence[float], seed: int, trials: range) -> list[Scores]:
        """Scores of each trial at each SNR, solved in one batch, whose seconds are divided evenly."""
        problem = self.drawn(seed, trials)
        y, s2 = observe(problem.clean, problem.noise, _column(snrs_db))
        if estimator == BOUND:
            bound = synthetic_bound(problem, s2)
            energy = squared_modulus(problem.x).flatten(1).sum(-1).expand_as(bound)
            return _bound_scores(bound / energy, bound, energy)
        if estimator in SYNTHETIC_REFERENCES:
            method = synthetic_reference(estimator, self, problem, seed)
        else:
            method = SYNTHETIC_ESTIMATORS[estimator]
        method = published(method) if self.as_published else method
        estimate, seconds = _timed(method, problem.factors, y, s2 if self.known_noise else None)
        dims = len(self.rows)
        error, energy = squared_error(estimate.mean, problem.x, dims)
        return _scores(
            nmse=nmse(estimate.mean, problem.x, dims),
            error_energy=error,
            reference_energy=energy,
            srr=support_recovery_rate(estimate.mean, problem.x, dims),
            iterations=estimate.iterations,
            seconds=torch.full_like(s2, seconds() / s2.numel()),
        )


@dataclass(frozen=True)
class IRSExperiment:
    """Channel estimation of the IRS-aided uplink; see `sbl.systems.irs_mimo`.

    Pilots and patterns are drawn once for the run, or anew for each trial if `fresh_training`. Trials are
    drawn on the CPU and solved on `device`. `as_published` takes the estimators as the paper has them.

    >>> [scores] = IRSExperiment().run("KOMP", [20.0], seed=0, trials=range(2))
    >>> sorted(scores)
    ['error_energy', 'iterations', 'nmse', 'reference_energy', 'seconds', 'ser']
    """

    system: IRSMIMO = field(default_factory=IRSMIMO)
    fresh_training: bool = False
    device: str = "cpu"
    as_published: bool = False

    @property
    def unknowns(self) -> int:
        return math.prod(self.system.unknowns)

    def drawn(self, seed: int, trials: range) -> "Drawn":
        """The trials' channels and noise; those of the last pieces are kept."""
        parts = [_draw_channels(self, seed, piece) for piece in pieces(trials)]
        joined = _joined(parts)
        return joined if self.fresh_training else joined._replace(training=parts[0].training)

    def is_drawn(self, seed: int, trials: range) -> bool:
        return all(_draw_channels.done(self, seed, piece) for piece in pieces(trials))

    def rehearse(self) -> None:
        """As of `SyntheticExperiment`."""
        sizes = self.system.patterns, array_size(self.system.bs), array_size(self.system.ms)
        channel = torch.ones(sizes, dtype=self.system.dtype, device=self.device)
        symbol_error_rate(channel, channel, 0.0)

    def run(self, estimator: str, snrs_db: Sequence[float], seed: int, trials: range) -> list[Scores]:
        """Scores of each trial at each SNR, solved in one batch, whose seconds are divided evenly."""
        drawn = self.drawn(seed, trials)
        if estimator == BOUND:
            return self._bound(drawn, _column(snrs_db))
        scores = []
        for _, group in groupby(snrs_db, SVD_PRUNES_FROM_DB.__le__):
            together = list(group)
            if estimator in IRS_REFERENCES:
                method = irs_reference(estimator, self.system, drawn.rays, seed)
            else:
                method = irs_estimator(estimator, self.as_published, together[0])
            snr_db = _column(together)
            y, s2 = observe(drawn.clean, drawn.noise, snr_db)
            estimate, seconds = _timed(method, self.system.factors(drawn.training), y, s2)
            found = self.system.channel_of(estimate.mean, drawn.training)
            error, energy = squared_error(found, drawn.cascade, dims=3)
            scores += _scores(
                nmse=channel_nmse(found, drawn.cascade),
                error_energy=error,
                reference_energy=energy,
                ser=symbol_error_rate(found, drawn.cascade, snr_db),
                iterations=estimate.iterations,
                seconds=torch.full_like(s2, seconds() / s2.numel()),
            )
        return scores

    def _bound(self, drawn: "Drawn", snr_db: Tensor) -> list[Scores]:
        _, s2 = observe(drawn.clean, drawn.noise, snr_db)
        bound = irs_bound(self.system, drawn.rays, drawn.training, s2)
        energy = squared_modulus(drawn.cascade).sum((-2, -1)).expand_as(bound)
        return _bound_scores(mean_ratio(bound, energy), bound.sum(-1), energy.sum(-1))


def _bound_scores(nmse: Tensor, error: Tensor, energy: Tensor) -> list[Scores]:
    """Those of a bound on the error's energy: it bounds the pooled NMSE, and the mean where both go together."""
    return _scores(
        nmse=nmse,
        error_energy=error,
        reference_energy=energy,
        iterations=torch.zeros_like(error),
        seconds=torch.zeros_like(error),
    )


def _column(snrs_db: Sequence[float]) -> Tensor:
    """(SNRs, 1), which broadcasts with a batch of trials."""
    return torch.tensor(snrs_db, dtype=torch.float64).unsqueeze(-1)


def _scores(**tables: Tensor) -> list[Scores]:
    """Tables of (SNRs, trials) as one dictionary of lists an SNR."""
    rows = zip(*(table.tolist() for table in tables.values()), strict=True)
    return [dict(zip(tables, row, strict=True)) for row in rows]


def _joined(parts: list[Parts]) -> Parts:
    """Pieces of trials as one."""
    return parts[0] if len(parts) == 1 else tree_map(lambda *tensors: torch.cat(tensors), *parts)


@drawn_once
def _draw_synthetic_trials(experiment: SyntheticExperiment, seed: int, trials: range) -> SyntheticProblem:
    draws = [
        draw_synthetic(trial_generator(seed, trial), experiment.rows, experiment.columns, experiment.sparsity)
        for trial in trials
    ]

    stack = partial(_stack, experiment.device)
    return SyntheticProblem(
        tuple(stack(A) for A in zip(*(d.factors for d in draws), strict=True)),
        stack([d.x for d in draws]),
        tuple(stack(s) for s in zip(*(d.support for d in draws), strict=True)),
        stack([d.clean for d in draws]),
        stack([d.noise for d in draws]),
    )


class Drawn(NamedTuple):
    """Trials of the IRS experiment, without an SNR."""

    training: Training
    rays: tuple[Rays, Rays]
    cascade: Tensor  # (trials, K_I, bs, ms)
    clean: Tensor  # (trials, M)
    noise: Tensor  # (trials, M)


@drawn_once
def _draw_channels(experiment: IRSExperiment, seed: int, trials: range) -> Drawn:
    system, stack = experiment.system, partial(_stack, experiment.device)
    if experiment.fresh_training:
        each = [system.draw_training(trial_generator(seed, "training", trial)) for trial in trials]
        training = Training(*(stack(parts) for parts in zip(*each, strict=True)))
    else:
        shared = system.draw_training(trial_generator(seed, "training"))
        training = Training(*(part.to(experiment.device) for part in shared))
    generators = [trial_generator(seed, trial) for trial in trials]
    rays = system.draw_rays(generators, experiment.device)
    channel = system.channel_of_rays(rays)
    noise = stack([system.draw_noise(generator) for generator in generators])
    cascade = system.cascade(channel, training)
    clean = system.samples(cascade, training)
    require_received(trials, clean, channel)
    return Drawn(training, rays, cascade, clean, noise)


def require_received(trials: range, clean: Tensor, channel: Channel) -> None:
    """ValueError where a trial's paths cancel under every pattern and pilot, so that its samples are rounding."""
    H1, H2 = channel
    by_element = squared_modulus(H1).mean(-1) * squared_modulus(H2).mean(-2)
    dark = ~above_rounding(squared_modulus(clean).mean(-1), by_element.mean(-1))
    if dark.any():
        raise ValueError(
            f"trial {trials[int(dark.int().argmax())]}: nothing is received, its paths cancel under all pilots "
            "and patterns; more --pilots or --patterns, another --seed or --on_grid false keep them from it"
        )


def _stack(device: str, parts: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(parts)).to(device)


def _timed(
    method: Estimator, factors: Sequence[Tensor], y: Tensor, s2: Tensor | None
) -> tuple[Estimate, Callable[[], float]]:
    """The estimate, and its seconds once they are asked for: a GPU is not waited for before."""
    if y.is_cuda:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(y.device)
        begin.record(stream)
        estimate = method(factors, y, s2)
        end.record(stream)

        def seconds() -> float:
            end.synchronize()
            return begin.elapsed_time(end) / 1000

        return estimate, seconds
    start = time.perf_counter()
    estimate = method(factors, y, s2)
    passed = time.perf_counter() - start
    return estimate, lambda: passed
