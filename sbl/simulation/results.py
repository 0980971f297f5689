"""Tables and curves of Monte-Carlo results."""

import csv
import io
import json
import math
from collections import defaultdict
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from unfoldkit.common.figures import MARKERS, save_figure
from unfoldkit.common.files import write_whole

Row = dict[str, Any]

AXES = {
    "snr_db": "SNR (dB)",
    "first_rows": "measurements of the first factor, $M_1$",
    "sparsity": "nonzeros a factor, $K$",
}
METRICS = {
    "nmse": "NMSE",
    "ser": "symbol error rate",
    "srr": "support recovery rate",
    "seconds": "seconds a solve",
}
LINEAR = ("srr",)
LOWEST = {"ser": 1e-5}


def write_results(
    out: Path, settings: dict[str, Any], scores: list[tuple[str, dict[str, float], dict[str, list[float]]]]
) -> list[Row]:
    """results.csv and results.json: one row for each estimator and point, means with standard errors."""
    gathered: dict[tuple[str, tuple[tuple[str, float], ...]], dict[str, list[float]]] = {}
    for estimator, point, shard in scores:
        trials = gathered.setdefault((estimator, tuple(point.items())), defaultdict(list))
        for metric, values in shard.items():
            trials[metric] += values
    table = [_row(estimator, dict(point), trials) for (estimator, point), trials in gathered.items()]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, table[0])
    writer.writeheader()
    writer.writerows(table)
    write_whole(out / "results.csv", text.getvalue())
    write_whole(out / "results.json", json.dumps({"settings": settings, "points": table}, indent=2))
    return table


def _row(estimator: str, point: dict[str, float], trials: dict[str, list[float]]) -> Row:
    row: Row = {"estimator": estimator, **point, "trials": len(trials["nmse"])}
    for metric, values in trials.items():
        mean = math.fsum(values) / len(values)
        spread = math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
        row[metric] = mean
        row[f"{metric}_standard_error"] = math.sqrt(spread / len(values))
    return row


def write_curves(out: Path, table: list[Row]) -> None:
    """One PNG for each metric over the quantity that varies, and the same curves for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    axis = _varying(table)
    with SummaryWriter(str(out / "tensorboard")) as writer:
        for metric in (metric for metric in METRICS if metric in table[0]):
            curves: dict[str, list[Row]] = defaultdict(list)
            for row in sorted(table, key=lambda row: row[axis]):
                curves[row["estimator"]].append(row)
                writer.add_scalar(f"{metric}/{row['estimator']}", row[metric], round(row[axis]))
            _draw(out / f"{metric}.png", curves, axis, metric)


def _varying(table: list[Row]) -> str:
    varying = [axis for axis in AXES if len({row.get(axis) for row in table}) > 1]
    if len(varying) > 1:
        raise ValueError(f"only one quantity can vary in a run, not {' and '.join(varying)}")
    return varying[0] if varying else "snr_db"


def _draw(path: Path, curves: dict[str, list[Row]], axis: str, metric: str) -> None:
    figure = Figure(figsize=(5, 3.8), layout="constrained")
    axes = figure.subplots()
    for (estimator, rows), marker in zip(curves.items(), cycle(MARKERS), strict=False):
        errors = [row[f"{metric}_standard_error"] for row in rows]
        values = [row[metric] for row in rows]
        axes.errorbar(
            [row[axis] for row in rows], values, errors, marker=marker, capsize=2, label=Path(estimator).name
        )
    if metric not in LINEAR and any(row[metric] > 0 for rows in curves.values() for row in rows):
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(bottom=max(axes.get_ylim()[0], LOWEST.get(metric, 0.0)))
    axes.set(xlabel=AXES[axis], ylabel=METRICS[metric])
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    save_figure(figure, path)
