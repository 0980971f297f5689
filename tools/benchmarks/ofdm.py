"""Channel estimators on 3GPP's urban microcells, through Sionna."""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from unfoldkit.tools.benchmarks.timing import setting

SIZES = {"num_ofdm_symbols": 14, "fft_size": 624, "subcarrier_spacing": 30e3, "num_tx": 4}
PILOTS = {"pilot_pattern": "kronecker", "pilot_ofdm_symbol_indices": [2, 11]}
COVARIANCE_SEED = 1_000_000


def run(
    drops: int,
    seed: int,
    covariance_drops: int,
    detected: int,
    snr: Sequence[float],
    speed: float,
    dual: bool,
    orders: Sequence[str] | None,
    json_path: str | None,
) -> int:
    """Compare, print a table, and write the file `json_path`."""
    import torch

    from unfoldkit.sbl import Cell, KroSBLChannelEstimator, covariances
    from unfoldkit.sbl.ofdm.comparison import ORDERS, ChannelEstimator, compare, sionna_estimators

    torch.set_num_threads(1)
    import sionna.phy
    from sionna.phy.ofdm import ResourceGrid

    sionna.phy.config.seed = seed
    grid = ResourceGrid(**SIZES, **PILOTS)
    cell = Cell(rows=2 if dual else 4, dual=dual, speed=speed)
    covariance = covariances(grid, covariance_drops, COVARIANCE_SEED, cell)
    estimators: dict[str, ChannelEstimator] = {
        **sionna_estimators(grid, covariance, orders or ORDERS),
        "AM-KroSBL": KroSBLChannelEstimator(grid, cell.array()),
    }
    rows = [
        {"estimator": name, "snr": level, **figures}
        for (name, level), figures in compare(grid, estimators, snr, drops, seed, cell, detected).items()
    ]
    _show(rows)
    if json_path:
        about = {"drops": drops, "seed": seed, "covariance_drops": covariance_drops, "detected": detected}
        _write(json_path, {"setting": setting("cpu"), **about, "speed": speed, "dual": dual, "rows": rows})
    return 0


def _show(rows: Sequence[dict]) -> None:
    table = Table("estimator", "SNR", "NMSE (dB)", "+-", "err_var / error (dB)", "BER", "ms a user")
    for row in rows:
        table.add_row(
            row["estimator"],
            f"{row['snr']:g}",
            *(f"{row[name]:.2f}" for name in ("nmse", "nmse_deviation", "calibration")),
            f"{row['ber']:.2e}",
            f"{1e3 * row['seconds']:.1f}",
        )
    Console().print(table)


def _write(path: str, content: dict) -> None:
    from unfoldkit.common.files import write_whole

    write_whole(path, json.dumps(content, indent=2) + "\n")
