"""The OFDM experiment of `simulate`: a coded uplink on 3GPP channels, trial by trial."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..simulation.seeds import trial_generator
from ..training.weights import load_estimator
from .comparison import ORDERS
from .estimator import KroSBLChannelEstimator, on_grid
from .extra import require_sionna
from .link import Uplink
from .oracle import PathOracle, umi_paths
from .shared_lmmse import SharedLMMSE
from .umi import Cell, Covariances, covariances, sionna_on_cpu, umi_channels

require_sionna()
from sionna.phy.ofdm import LSChannelEstimator, ResourceGrid  # noqa: E402

ChannelEstimator = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Scores = dict[str, list[float]]

# Of LMMSE's passes over frequency, time and space.
DEFAULT_ORDER = "f-t-s"
UNFOLDED = "Unfolded:"
KNOWN = "known"
ORACLE = "Oracle"
ESTIMATORS = ("LS", "LMMSE", *(f"LMMSE-{order}" for order in ORDERS), "AM", "OffGrid", ORACLE, KNOWN)
# Channels that a process keeps, for the next estimator.
KEPT_DRAWS = 16


@dataclass(frozen=True)
class OFDMExperiment:
    """A coded uplink of 3GPP's urban microcell: estimate the channel, detect, decode, count.

    Sizes as in `OFDMOptions`, in hertz and metres a second. The SNR is 1 / N0 of a resource element, every link
    having unit energy. Trials are drawn one by one, channel, bits and noise from generators of their own.

    >>> small = OFDMExperiment(users=2, rows=2, columns=2, subcarriers=24)
    >>> [scores] = small.run("LS", [10.0], seed=0, trials=range(2))
    >>> sorted(scores)
    ['ber', 'bler', 'claimed_error', 'error_energy', 'nmse', 'pilots', 'reference_energy', 'seconds', 'ser',
     'spectral_efficiency']
    """

    users: int = 4
    rows: int = 4
    columns: int = 4
    dual: bool = False
    subcarriers: int = 624
    spacing: float = 30e3
    symbols: int = 14
    pilot_symbols: tuple[int, ...] = (2, 11)
    speed: float = 3 / 3.6
    carrier: float = 3.5e9
    bits: int = 2
    rate: float = 0.5
    covariance_drops: int = 600
    device: str = "cpu"

    @sionna_on_cpu()
    def run(self, estimator: str, snrs_db: Sequence[float], seed: int, trials: range) -> list[Scores]:
        """Scores of each trial at each SNR; `seconds` are those of the estimate of a drop, all users together."""
        return [self._run_at(estimator, snr_db, seed, trials) for snr_db in snrs_db]

    @sionna_on_cpu()
    def uplink(self) -> Uplink:
        """The resource grid and the code; ValueError where they do not fit."""
        return _uplink(self)

    def cell(self) -> Cell:
        return Cell(
            rows=self.rows, columns=self.columns, dual=self.dual, speed=self.speed, carrier=self.carrier
        )

    def _run_at(self, name: str, snr_db: float, seed: int, trials: range) -> Scores:
        link, noise_variance = self.uplink(), 10 ** (-snr_db / 10)
        shared = None if name in (KNOWN, ORACLE) else channel_estimator(name, self, seed)
        found: Scores = {}
        for trial in trials:
            h = _channel(self, seed, trial)
            generator = trial_generator(seed, trial)
            sent = link.send([generator])
            noise = torch.randn(
                *h.shape[:3], self.symbols, self.subcarriers, generator=generator, dtype=h.dtype
            )
            y = link.receive(sent, h, noise, noise_variance)
            method = _oracle(self, seed, trial) if name == ORACLE else shared
            estimate, seconds = _timed(method, y, noise_variance, h)
            scores = link.scores(sent, y, h, estimate, noise_variance)
            scores |= {"pilots": torch.tensor([link.pilots]), "seconds": torch.tensor([seconds])}
            for metric, value in scores.items():
                found.setdefault(metric, []).append(float(value))
        return found


def channel_estimator(name: str, experiment: OFDMExperiment, seed: int) -> ChannelEstimator:
    """The estimator called `name`; ValueError where there is none, or what `load_estimator` raises for a file.

    LS is Sionna's; LMMSE is, too, with filters that all drops share, from covariances of drops that no trial is
    of. AM (AM-KroSBL on its grid), OffGrid (`OffGridKroSBL`) and Unfolded:FILE (a trained `UnfoldedKroSBL`) are
    inside `KroSBLChannelEstimator`.
    """
    grid, array = experiment.uplink().grid, experiment.cell().array()
    if name.startswith(UNFOLDED):
        unfolded: Any = load_estimator(name.removeprefix(UNFOLDED))
        return KroSBLChannelEstimator(grid, array, estimator=unfolded)
    require_name(name)
    if name == "LS":
        return LSChannelEstimator(grid, interpolation_type="lin")
    if name == "AM":
        return KroSBLChannelEstimator(grid, array, estimator=on_grid())
    if name == "OffGrid":
        return KroSBLChannelEstimator(grid, array)
    order = name.removeprefix("LMMSE").removeprefix("-") or DEFAULT_ORDER
    return SharedLMMSE(grid, _covariances(experiment, seed), order)


def require_name(name: str) -> None:
    """ValueError where there is no estimator of that name."""
    if not name.startswith(UNFOLDED) and name not in ESTIMATORS:
        raise ValueError(f"no estimator {name}; there are {', '.join(ESTIMATORS)} and {UNFOLDED}FILE")


def _timed(
    method: ChannelEstimator | None, y: Tensor, noise_variance: float, h: Tensor
) -> tuple[tuple[Tensor, Tensor], float]:
    if method is None:
        return (h, torch.zeros_like(h.real)), 0.0
    start = time.perf_counter()
    estimate = method(y, torch.tensor(noise_variance, dtype=y.real.dtype))
    return estimate, time.perf_counter() - start


@lru_cache(1)
def _uplink(experiment: OFDMExperiment) -> Uplink:
    grid = ResourceGrid(
        experiment.symbols,
        experiment.subcarriers,
        experiment.spacing,
        num_tx=experiment.users,
        pilot_pattern="kronecker",
        pilot_ofdm_symbol_indices=list(experiment.pilot_symbols),
    )
    return Uplink(grid, experiment.bits, experiment.rate)


@lru_cache(KEPT_DRAWS)
def _channel(experiment: OFDMExperiment, seed: int, trial: int) -> Tensor:
    return umi_channels(experiment.uplink().grid, 1, _drop_seed(seed, trial), experiment.cell())


@lru_cache(KEPT_DRAWS)
def _oracle(experiment: OFDMExperiment, seed: int, trial: int) -> ChannelEstimator:
    grid = experiment.uplink().grid
    return PathOracle(grid, umi_paths(grid, 1, _drop_seed(seed, trial), experiment.cell()))


def _drop_seed(seed: int, trial: int) -> int:
    return trial_generator(seed, "umi", trial).initial_seed()


@lru_cache(1)
def _covariances(experiment: OFDMExperiment, seed: int) -> Covariances:
    first = trial_generator(seed, "covariance").initial_seed()
    return covariances(experiment.uplink().grid, experiment.covariance_drops, first, experiment.cell())
