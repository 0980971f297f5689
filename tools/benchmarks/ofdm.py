"""Channel estimators on 3GPP's urban microcells, through Sionna."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from unfoldkit.tools.benchmarks.timing import setting

if TYPE_CHECKING:
    from sionna.phy.ofdm import ResourceGrid

    from unfoldkit.sbl import Cell
    from unfoldkit.sbl.ofdm.comparison import ChannelEstimator, Score
    from unfoldkit.sbl.ofdm.umi import Covariances

SIZES = {"num_ofdm_symbols": 14, "fft_size": 624, "subcarrier_spacing": 30e3, "num_tx": 4}
PILOTS = {"pilot_pattern": "kronecker", "pilot_ofdm_symbol_indices": [2, 11]}
COVARIANCE_SEED = 1_000_000
PARTS = 10  # of the drops, each computed by one process
GPU = "cuda:0"
GPU_CHANNELS = 8  # drops, which come again with other noise


def run(
    drops: int,
    seed: int,
    covariance_drops: int,
    detected: int,
    snr: Sequence[float],
    speed: float,
    dual: bool,
    orders: Sequence[str],
    processes: int,
    device: str,
    json_path: str | None,
) -> int:
    """Compare, print a table, and write the file `json_path`."""
    from unfoldkit.sbl import Cell

    cell = Cell(rows=2 if dual else 4, dual=dual, speed=speed)
    about: dict[str, Any] = {"drops": drops, "seed": seed, "speed": speed, "dual": dual}
    if device == "cuda":
        found = on_gpu(drops, seed, snr, cell)
    else:
        about |= {"covariance_drops": covariance_drops, "detected": detected, "processes": processes}
        found = on_cpu(drops, seed, covariance_drops, detected, snr, cell, orders, processes)
    rows = [{"estimator": name, "snr": level, **row} for (name, level), row in found.items()]
    _show(rows)
    if json_path:
        _write(json_path, {"setting": setting(device), **about, "rows": rows})
    return 0


def on_cpu(
    drops: int,
    seed: int,
    covariance_drops: int,
    detected: int,
    snr: Sequence[float],
    cell: "Cell",
    orders: Sequence[str],
    processes: int,
) -> dict[tuple[str, float], dict[str, float]]:
    """`sbl.ofdm.comparison.compare`, with the oracle, its drops spread over processes of one thread."""
    from unfoldkit.sbl.ofdm.umi import averaged
    from unfoldkit.sbl.simulation.processes import executor

    even = 2 * max(1, -(-drops // (2 * PARTS)))
    parts = [range(first, min(drops, first + even)) for first in range(0, drops, even)]
    share = -(-covariance_drops // PARTS)
    with executor(processes, None) as pool:
        seeds = range(COVARIANCE_SEED, COVARIANCE_SEED + PARTS * share, share)
        covariance = averaged(list(pool.map(partial(_covariance, cell, share), seeds)))
        score = partial(_scores, cell, covariance, tuple(orders), tuple(snr), seed, detected)
        found = list(pool.map(score, parts))
    return {key: sum((part[key] for part in found[1:]), found[0][key]).row() for key in found[0]}


def on_gpu(
    drops: int, seed: int, snr: Sequence[float], cell: "Cell"
) -> dict[tuple[str, float], dict[str, float]]:
    """`sbl.ofdm.comparison.throughput` of so many drops at once."""
    import sionna.phy

    from unfoldkit.sbl import KroSBLChannelEstimator, umi_channels
    from unfoldkit.sbl.ofdm.comparison import throughput
    from unfoldkit.sbl.ofdm.estimator import on_grid

    sionna.phy.config.seed = seed
    grid = resource_grid(GPU)
    channels = umi_channels(resource_grid(), GPU_CHANNELS, seed, cell).to(GPU)
    estimators: Mapping[str, ChannelEstimator] = {
        "off the grid": KroSBLChannelEstimator(grid, cell.array(), device=GPU),
        "AM-KroSBL": KroSBLChannelEstimator(grid, cell.array(), estimator=on_grid(), device=GPU),
    }
    return throughput(grid, estimators, snr, channels, drops * grid.num_tx)


def resource_grid(device: str = "cpu") -> "ResourceGrid":
    from sionna.phy.ofdm import ResourceGrid

    return ResourceGrid(**SIZES, **PILOTS, device=device)


def _covariance(cell: "Cell", drops: int, seed: int) -> "Covariances":
    import torch

    from unfoldkit.sbl import covariances

    torch.set_num_threads(1)
    return covariances(resource_grid(), drops, seed, cell)


def _scores(
    cell: "Cell",
    covariance: "Covariances",
    orders: Sequence[str],
    snr: Sequence[float],
    seed: int,
    detected: int,
    drops: range,
) -> "dict[tuple[str, float], Score]":
    """Of a part of the drops, all with the pilots of the same seed."""
    import sionna.phy
    import torch

    from unfoldkit.sbl import KroSBLChannelEstimator
    from unfoldkit.sbl.ofdm.comparison import scores, sionna_estimators
    from unfoldkit.sbl.ofdm.estimator import on_grid

    torch.set_num_threads(1)
    sionna.phy.config.seed, sionna.phy.config.device = seed, "cpu"
    grid = resource_grid()
    estimators = sionna_estimators(grid, covariance, orders) | {
        "AM-KroSBL": KroSBLChannelEstimator(grid, cell.array(), estimator=on_grid()),
        "KroSBL off the grid": KroSBLChannelEstimator(grid, cell.array()),
    }
    return scores(grid, estimators, snr, drops, seed, cell, detected, oracle=True)


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table("estimator", "SNR", "NMSE (dB)", "+-", "err_var / error (dB)", "BER", "ms a user")
    for row in rows:
        table.add_row(
            row["estimator"],
            f"{row['snr']:g}",
            *(
                f"{row[name]:.2f}" if name in row else ""
                for name in ("nmse", "nmse_deviation", "calibration")
            ),
            f"{row['ber']:.2e}" if "ber" in row else "",
            f"{1e3 * row['seconds']:.2f}",
        )
    Console().print(table)


def _write(path: str, content: dict) -> None:
    from unfoldkit.common.files import write_whole

    write_whole(path, json.dumps(content, indent=2) + "\n")
