"""Channel estimators against each other on 3GPP's urban microcells: NMSE, error variance, bit errors."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from torch import Tensor

from ..algebra import squared_modulus
from .extra import require_sionna
from .oracle import PathOracle, umi_paths
from .shared_lmmse import SharedLMMSE
from .umi import Cell, Covariances, sionna_on_cpu, umi_channels

require_sionna()
from sionna.phy.mapping import Mapper  # noqa: E402
from sionna.phy.mimo import StreamManagement  # noqa: E402
from sionna.phy.ofdm import (  # noqa: E402
    LinearDetector,
    LSChannelEstimator,
    ResourceGrid,
    ResourceGridMapper,
)

ChannelEstimator = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
ORDERS = ("t-f", "f-t", "t-f-s", "f-t-s", "f-s-t", "s-f-t", "t-s-f", "s-t-f")
ORACLE = "oracle"
DROPS_AT_ONCE = 2


@dataclass
class Score:
    """Sums over drops, and what they give.

    nmse: ||h_hat - h||^2 over ||h||^2, in decibels. calibration: the mean err_var over the mean squared error, in
    decibels. ber: of QPSK without a code, through Sionna's linear MMSE detector. seconds: of a processor's core, a
    user; nmse_deviation: the standard error of the NMSE over drops, in decibels.
    """

    errors: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    variances: float = 0.0
    wrong: float = 0.0
    bits: int = 0
    spent: float = 0.0
    users: int = 0

    def __add__(self, other: "Score") -> "Score":
        """That of both's drops."""
        return Score(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def row(self) -> dict[str, float]:
        """The figures by their names."""
        errors, energies = np.array(self.errors), np.array(self.energies)
        ratio = errors.sum() / energies.sum()
        spread = np.std(errors - ratio * energies) * math.sqrt(len(errors)) / energies.sum()
        return {
            "nmse": 10 * math.log10(ratio),
            "nmse_deviation": 10 / math.log(10) * float(spread / ratio),
            "calibration": 10 * math.log10(self.variances / errors.sum()),
            "ber": self.wrong / max(1, self.bits),
            "seconds": self.spent / self.users,
        }


def sionna_estimators(
    resource_grid: ResourceGrid, covariance: Covariances, orders: Sequence[str] = ORDERS
) -> dict[str, ChannelEstimator]:
    """Sionna's LS with linear interpolation, and its LMMSE in each order of its passes (`SharedLMMSE`)."""
    found: dict[str, ChannelEstimator] = {"LS": LSChannelEstimator(resource_grid, interpolation_type="lin")}
    return found | {f"LMMSE {order}": SharedLMMSE(resource_grid, covariance, order) for order in orders}


@sionna_on_cpu()
def compare(
    resource_grid: ResourceGrid,
    estimators: Mapping[str, ChannelEstimator],
    snr_db: Sequence[float],
    drops: int,
    seed: int,
    cell: Cell | None = None,
    detected: int | None = None,
    oracle: bool = False,
) -> dict[tuple[str, float], dict[str, float]]:
    """`Score.row` of each estimator at each SNR = 1 / N0 of a resource element, on the drops of `umi_channels`.

    All see the same channels, noise and QPSK data, which `seed` alone decides. `estimators` take y and N0 and give
    h_hat and err_var as every Sionna channel estimator does. Bits are detected in the first `detected` drops,
    which takes longer than most estimates; None: in all. `oracle`: of `PathOracle` too, called "oracle".

    Raises:
        ValueError: there is no drop.

    >>> from sionna.phy.ofdm import ResourceGrid
    >>> from unfoldkit.sbl import KroSBLChannelEstimator
    >>> grid = ResourceGrid(14, 48, 30e3, num_tx=2, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2, 11])
    >>> rows = compare(grid, {"AM": KroSBLChannelEstimator(grid, (4, 4))}, [0.0], 1, 3)
    >>> rows["AM", 0.0]["nmse"] < -8
    True
    """
    if drops < 1:
        raise ValueError(f"a comparison needs at least one drop, got {drops}")
    found = scores(resource_grid, estimators, snr_db, range(drops), seed, cell, detected, oracle)
    return {key: score.row() for key, score in found.items()}


@sionna_on_cpu()
def scores(
    resource_grid: ResourceGrid,
    estimators: Mapping[str, ChannelEstimator],
    snr_db: Sequence[float],
    drops: range,
    seed: int,
    cell: Cell | None = None,
    detected: int | None = None,
    oracle: bool = False,
) -> dict[tuple[str, float], Score]:
    """The `Score`s of a part of the drops of `compare`, which begins with an even one; those of parts add up."""
    methods = dict(estimators)
    names = [*methods, ORACLE] if oracle else [*methods]
    found = {(name, snr): Score() for name in names for snr in snr_db}
    detector = LinearDetector(
        *("lmmse", "bit", "app", resource_grid, StreamManagement(np.ones((1, resource_grid.num_tx)), 1)),
        constellation_type="qam",
        num_bits_per_symbol=2,
        hard_out=True,
    )
    for first in range(drops.start, drops.stop, DROPS_AT_ONCE):
        count = min(DROPS_AT_ONCE, drops.stop - first)
        h = umi_channels(resource_grid, count, seed + first, cell)
        if oracle:
            methods[ORACLE] = PathOracle(resource_grid, umi_paths(resource_grid, count, seed + first, cell))
        random = torch.Generator().manual_seed(seed + first)
        bits, clean = _sent(resource_grid, h, random)
        noise = torch.randn(clean.shape, generator=random, dtype=clean.dtype)
        for (name, snr), score in found.items():
            no = torch.tensor(10 ** (-snr / 10))
            y = clean + no.sqrt() * noise
            start = time.process_time()
            h_hat, err_var = methods[name](y, no)
            score.spent += time.process_time() - start
            score.users += h.shape[0] * resource_grid.num_tx
            score.errors += squared_modulus(h_hat - h).flatten(1).sum(1).tolist()
            score.energies += squared_modulus(h).flatten(1).sum(1).tolist()
            score.variances += float(err_var.sum())
            if detected is None or first < detected:
                score.wrong += float((detector(y, h_hat, err_var, no) != bits).sum())
                score.bits += bits.numel()
    return found


def throughput(
    resource_grid: ResourceGrid,
    estimators: Mapping[str, ChannelEstimator],
    snr_db: Sequence[float],
    channels: Tensor,
    users: int,
    repeats: int = 2,
) -> dict[tuple[str, float], dict[str, float]]:
    """Seconds a user of estimators that take many users at once, and their NMSE in decibels, at each SNR.

    channels: (drops, 1, antennas, transmitters, 1, symbols, subcarriers), which come again and again with other
    noise until there are so many users. On their device; the best of `repeats` after one to warm up. Pilots alone
    are sent.
    """
    drops = -(-users // resource_grid.num_tx)
    h = channels.repeat(-(-drops // len(channels)), *[1] * 6)[:drops]
    pattern = resource_grid.pilot_pattern
    x = torch.zeros(pattern.mask.shape, dtype=h.dtype)
    x[pattern.mask.bool().cpu()] = pattern.pilots.flatten().to(x)
    places = torch.as_tensor(resource_grid.effective_subcarrier_ind)
    clean = h.new_zeros(*h.shape[:3], h.shape[-2], resource_grid.fft_size)
    clean[..., places] = torch.einsum("drausf,usf->drasf", h[:, :, :, :, 0], x[:, 0].to(h))
    random = torch.Generator(h.device).manual_seed(0)
    noise = torch.randn(clean.shape, generator=random, dtype=h.dtype, device=h.device)
    rows = {}
    for name, estimator in estimators.items():
        for snr in snr_db:
            no = 10 ** (-snr / 10)
            y, seconds = clean + no**0.5 * noise, []
            for _ in range(1 + repeats):
                start = _now(h.device)
                h_hat, _ = estimator(y, torch.tensor(no, device=h.device))
                seconds.append(_now(h.device) - start)
            ratio = squared_modulus(h_hat - h).sum() / squared_modulus(h).sum()
            rows[name, snr] = {
                "nmse": 10 * math.log10(float(ratio)),
                "seconds": min(seconds[1:]) / (drops * resource_grid.num_tx),
            }
    return rows


def _now(device: torch.device) -> float:
    """Seconds, when all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _sent(resource_grid: ResourceGrid, h: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Bits (drops, users, 1, n) of QPSK, and what arrives of them: (drops, 1, antennas, symbols, subcarriers)."""
    shape = (len(h), resource_grid.num_tx, 1, 2 * resource_grid.num_data_symbols)
    bits = torch.randint(2, shape, generator=random).to(h.real.dtype)
    x = ResourceGridMapper(resource_grid)(Mapper("qam", 2)(bits))
    places = torch.as_tensor(resource_grid.effective_subcarrier_ind)
    clean = h.new_zeros(*h.shape[:3], h.shape[-2], resource_grid.fft_size)
    clean[..., places] = torch.einsum("drauisf,duisf->drasf", h, x[..., places])
    return bits, clean
