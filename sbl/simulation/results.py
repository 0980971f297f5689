"""Tables, curves and distributions of Monte-Carlo results."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from unfoldkit.common.figures import MARKERS, line_style, rendered, save_figure, save_pixels
from unfoldkit.common.files import write_whole
from unfoldkit.common.report import fresh_writer

from .options import AXES, Point, varying
from .shards import BOUND, Scores
from .statistics import OUTAGES, summary

Row = dict[str, Any]
Kept = Sequence[tuple[str, Point, Scores]]  # estimator, point and scores of each shard

METRICS = {
    "nmse": "NMSE",
    "pooled_nmse": "pooled NMSE",
    "ser": "symbol error rate",
    "ber": "bit error rate",
    "bler": "block error rate",
    "spectral_efficiency": "spectral efficiency (bit/s/Hz)",
    "claimed_error": "error variance over error",
    "srr": "support recovery rate",
    "seconds": "seconds a solve",
}
OTHER_NMSES = ("median_nmse", *(f"outage_above_{limit:g}" for limit in OUTAGES))
LINEAR = ("srr", "spectral_efficiency")
LOWEST = {"ser": 1e-5, "ber": 1e-6, "bler": 1e-4}
SMALLEST = 1e-20  # NMSE that is drawn
PANELS_A_ROW = 3


def write_results(out: Path, settings: dict[str, Any], kept: Kept) -> list[Row]:
    """results.csv and results.json: one row for each estimator and point, see `statistics.summary`."""
    table = [
        {"estimator": estimator, **dict(point), "trials": len(scores["nmse"]), **summary(scores)}
        for (estimator, point), scores in _gathered(kept).items()
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, dict.fromkeys(key for row in table for key in row))
    writer.writeheader()
    writer.writerows(table)
    write_whole(out / "results.csv", text.getvalue())
    write_whole(out / "results.json", json.dumps({"settings": settings, "points": table}, indent=2))
    return table


def _gathered(kept: Kept) -> dict[tuple[str, tuple[tuple[str, float], ...]], Scores]:
    """The scores of all trials of each estimator at each point."""
    gathered: dict[tuple[str, tuple[tuple[str, float], ...]], Scores] = {}
    for estimator, point, scores in kept:
        trials = gathered.setdefault((estimator, tuple(point.items())), defaultdict(list))
        for metric, values in scores.items():
            trials[metric] += values
    return gathered


def write_curves(out: Path, table: list[Row], kept: Kept) -> None:
    """One PNG for each metric over the quantity that varies, the distribution of the NMSE, both in TensorBoard."""
    axis = varying(table)
    curves: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(table, key=lambda row: row[axis]):
        curves[row["estimator"]].append(row)
    with fresh_writer(out / "tensorboard") as writer:
        for metric in (*METRICS, *OTHER_NMSES):
            having = {name: rows for name, rows in curves.items() if metric in rows[0]}
            for estimator, rows in having.items():
                for row in rows:
                    writer.add_scalar(f"{metric}/{estimator}", row[metric], round(row[axis]))
            if having and metric in METRICS:
                save_figure(_curves_figure(having, axis, metric), out / f"{metric}.png")
        pixels = rendered(distribution_figure(_distributions(kept, axis), AXES[axis]))
        save_pixels(pixels, out / "nmse_distribution.png")
        writer.add_image("figures/nmse_distribution", pixels, dataformats="HWC")


def rehearse() -> None:
    """Import TensorBoard and draw a figure that nobody keeps, which the first one wanted would wait for."""
    import torch.utils.tensorboard  # noqa: F401

    row = {"snr_db": 0.0, "nmse": 0.01, "nmse_standard_error": 0.0}
    rendered(_curves_figure({"SVD": [row, row | {"snr_db": 1.0, "nmse": 10.0}]}, "snr_db", "nmse"))


def _curves_figure(curves: Mapping[str, Sequence[Row]], axis: str, metric: str) -> Figure:
    figure = Figure(figsize=(5, 3.8), layout="constrained")
    axes = figure.subplots()
    for (estimator, rows), marker in zip(curves.items(), cycle(MARKERS), strict=False):
        style: dict[str, Any] = (
            {"linestyle": "--", "color": "0.2"} if estimator == BOUND else {"marker": marker}
        )
        errors = [row[f"{metric}_standard_error"] for row in rows]
        values = [row[metric] for row in rows]
        axes.errorbar(
            [row[axis] for row in rows], values, errors, capsize=2, label=Path(estimator).name, **style
        )
    if metric not in LINEAR and any(row[metric] > 0 for rows in curves.values() for row in rows):
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(bottom=max(axes.get_ylim()[0], LOWEST.get(metric, 0.0)))
    axes.set(xlabel=AXES[axis], ylabel=METRICS[metric])
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure


def _distributions(kept: Kept, axis: str) -> dict[float, dict[str, list[float]]]:
    """The NMSEs of all trials by the quantity that varies, then by estimator."""
    found: dict[float, dict[str, list[float]]] = defaultdict(dict)
    for (estimator, point), scores in _gathered(kept).items():
        if estimator == BOUND:
            continue
        found[dict(point)[axis]][Path(estimator).name] = scores["nmse"]
    return dict(sorted(found.items()))


def distribution_figure(nmses: Mapping[float, Mapping[str, Sequence[float]]], axis: str) -> Figure:
    """Empirical distribution functions of the NMSE: a panel for each value of `axis`, a line for each estimator.

    Dotted: the NMSEs beyond which a trial counts as an outage.

    >>> figure = distribution_figure({10.0: {"SVD": [0.5, 0.1]}}, "SNR (dB)")
    >>> [line.get_label() for line in figure.axes[0].lines][:1]
    ['SVD']
    """
    width = min(len(nmses), PANELS_A_ROW)
    height = -(-len(nmses) // width)
    figure = Figure(figsize=(3.2 * width + 0.6, 2.8 * height + 0.4), layout="constrained")
    grid = figure.subplots(height, width, squeeze=False, sharex=True, sharey=True)
    for panel, (value, curves) in zip(grid.flat, nmses.items(), strict=False):
        for k, (estimator, values) in enumerate(curves.items()):
            x = np.maximum(np.sort(values), SMALLEST)
            shares = np.arange(1, len(x) + 1) / len(x)
            style = line_style(k, len(curves)) | {"markevery": max(1, len(x) // 6)}
            panel.step(x, shares, where="post", label=estimator, **style)
        for limit in OUTAGES:
            panel.axvline(limit, color="0.4", linestyle=":", linewidth=0.8)
        panel.set(title=f"{axis}: {value:g}", xscale="log", ylim=(0, 1.02))
        panel.title.set_size(9)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    for unused in list(grid.flat)[len(nmses) :]:
        unused.set_axis_off()
    for axes in grid[-1]:
        axes.set_xlabel("NMSE")
    for axes in grid[:, 0]:
        axes.set_ylabel("share of trials below")
    grid[0, 0].legend(fontsize=7)
    return figure
