"""The paper's two experiments, trial by trial: draw, estimate, score.

Every trial is drawn from a generator of its own, seeded by (seed, trial), so that no number depends on how
trials are batched or shared between processes.
Source: He and Joseph, IEEE Trans. Signal Processing 2024, section V.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sbl.am_krosbl import AMKroSBL
from sbl.classic_sbl import ClassicSBL
from sbl.estimate import Estimate
from sbl.kronecker_omp import KroneckerOMP
from sbl.ksbl import KSBL
from sbl.metrics import channel_nmse, nmse, support_recovery_rate, symbol_error_rate
from sbl.omp import OMP
from sbl.oracle_ls import OracleLS
from sbl.pc_krosbl import PCKroSBL
from sbl.pc_sbl import PCSBL
from sbl.svd_krosbl import SVDKroSBL
from sbl.systems.irs_mimo import IRSMIMO, Channel, Training
from sbl.systems.observation import observe
from sbl.systems.synthetic import SyntheticProblem, draw_synthetic

Estimator = Callable[..., Estimate]
Scores = dict[str, list[float]]

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
}
_PC_IRS: dict[str, Any] = {"coupled": (0, 2), "pruning": (1e-2, 1e-1, 1e-2)}
IRS_ESTIMATORS: dict[str, Estimator] = {
    "SVD": SVDKroSBL(pruning=0.0, floor=1e-4),
    "AM": AMKroSBL(pruning=(1e-2, 1e-1, 1e-3), floor=1e-4, inner_tolerance=1e-4, inner_relative=True),
    "KSBL": KSBL(pruning=(1e-2, 1e-1, 1e-3), floor=1e-4),
    "PC0.8": PCKroSBL(0.8, **_PC_IRS),
    "PC0.5": PCKroSBL(0.5, **_PC_IRS),
    "classic": ClassicSBL(pruning=1e-4),
    "PCSBL": PCSBL(),
    "OMP": OMP(),
    "KOMP": KroneckerOMP(),
}
# From this SNR on, SVD-KroSBL prunes in the IRS experiment.
SVD_PRUNES_FROM_DB = 25.0


def trial_generator(seed: int, *stream: int | str) -> torch.Generator:
    """A generator for one purpose of one trial, independent of all others.

    >>> int(torch.randint(1000, (), generator=trial_generator(1, 0))) == int(
    ...     torch.randint(1000, (), generator=trial_generator(1, 0)))
    True
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *stream))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


@dataclass(frozen=True)
class SyntheticExperiment:
    """Random Kronecker-sparse problems; see `sbl.systems.synthetic`. `known_noise=False` hides the noise variance.

    >>> experiment = SyntheticExperiment(rows=(4, 5), columns=(6, 6), sparsity=2)
    >>> sorted(experiment.run("OLS", 20.0, seed=0, trials=range(2)))
    ['iterations', 'nmse', 'seconds', 'srr']
    """

    rows: tuple[int, ...] = (8, 12, 15)
    columns: tuple[int, ...] = (15, 15, 15)
    sparsity: int = 3
    known_noise: bool = True

    def run(self, estimator: str, snr_db: float, seed: int, trials: Sequence[int]) -> Scores:
        """Scores of each trial; seconds are the batch's, divided evenly."""
        draws = [
            draw_synthetic(trial_generator(seed, trial), self.rows, self.columns, self.sparsity)
            for trial in trials
        ]
        problem = SyntheticProblem(
            tuple(torch.stack(A) for A in zip(*(d.factors for d in draws), strict=True)),
            torch.stack([d.x for d in draws]),
            tuple(torch.stack(s) for s in zip(*(d.support for d in draws), strict=True)),
            torch.stack([d.clean for d in draws]),
            torch.stack([d.noise for d in draws]),
        )
        y, s2 = observe(problem.clean, problem.noise, snr_db)
        method = OracleLS(problem.support) if estimator == "OLS" else SYNTHETIC_ESTIMATORS[estimator]
        estimate, seconds = _timed(method, problem.factors, y, s2 if self.known_noise else None)
        dims = len(self.rows)
        return {
            "nmse": nmse(estimate.mean, problem.x, dims).tolist(),
            "srr": support_recovery_rate(estimate.mean, problem.x, dims).tolist(),
            "iterations": estimate.iterations.tolist(),
            "seconds": [seconds / len(trials)] * len(trials),
        }


@dataclass(frozen=True)
class IRSExperiment:
    """Channel estimation of the IRS-aided uplink; see `sbl.systems.irs_mimo`.

    Pilots and patterns are drawn once for the run, or anew for each trial if `fresh_training`.

    >>> sorted(IRSExperiment().run("KOMP", 20.0, seed=0, trials=range(2)))
    ['iterations', 'nmse', 'seconds', 'ser']
    """

    system: IRSMIMO = field(default_factory=IRSMIMO)
    fresh_training: bool = False

    def run(self, estimator: str, snr_db: float, seed: int, trials: Sequence[int]) -> Scores:
        """Scores of each trial; seconds are the batch's, divided evenly."""
        system = self.system
        training = self._training(seed, trials)
        generators = [trial_generator(seed, trial) for trial in trials]
        draws = [(system.draw_channel(g), system.draw_noise(g)) for g in generators]
        channel = Channel(*(torch.stack(hops) for hops in zip(*(c for c, _ in draws), strict=True)))
        y, s2 = observe(system.received(channel, training), torch.stack([n for _, n in draws]), snr_db)
        method = IRS_ESTIMATORS[estimator]
        if estimator == "SVD" and snr_db >= SVD_PRUNES_FROM_DB:
            method = SVDKroSBL(floor=1e-4)
        estimate, seconds = _timed(method, system.factors(training), y, s2)
        found, true = system.channel_of(estimate.mean, training), system.cascade(channel, training)
        return {
            "nmse": channel_nmse(found, true).tolist(),
            "ser": symbol_error_rate(found, true, snr_db).tolist(),
            "iterations": estimate.iterations.tolist(),
            "seconds": [seconds / len(trials)] * len(trials),
        }

    def _training(self, seed: int, trials: Sequence[int]) -> Training:
        if not self.fresh_training:
            return self.system.draw_training(trial_generator(seed, "training"))
        draws = [self.system.draw_training(trial_generator(seed, "training", trial)) for trial in trials]
        return Training(*(torch.stack(parts) for parts in zip(*draws, strict=True)))


def _timed(
    method: Estimator, factors: Sequence[Tensor], y: Tensor, s2: Tensor | None
) -> tuple[Estimate, float]:
    start = time.perf_counter()
    estimate = method(factors, y, s2)
    return estimate, time.perf_counter() - start
