"""Curves and distributions of Monte-Carlo results, drawn by whichever process is told to."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from unfoldkit.common.figures import MARKERS, line_style, rendered, save_figure, save_pixels

from .options import AXES
from .results import METRICS, Row, labels
from .shards import BOUND
from .statistics import OUTAGES, summary

LINEAR = ("srr", "spectral_efficiency")
LOWEST = {"ser": 1e-5, "ber": 1e-6, "bler": 1e-4}
SMALLEST = 1e-20  # NMSE that is drawn
PANELS_A_ROW = 3


def rehearse() -> None:
    """Draw a figure that nobody keeps and sum up a trial, which the first ones wanted would wait for."""
    scores = {"nmse": [0.01, 10.0], "error_energy": [1.0, 1.0], "reference_energy": [1.0, 1.0]}
    row = {"snr_db": 0.0, **summary(scores)}
    rendered(_curves_figure({"SVD": [row, row | {"snr_db": 1.0}]}, "snr_db", "nmse"))


def save_curves(curves: Mapping[str, Sequence[Row]], axis: str, metric: str, path: Path) -> None:
    """Write a metric of each estimator over `axis` as a PNG."""
    save_figure(_curves_figure(curves, axis, metric), path)


def _curves_figure(curves: Mapping[str, Sequence[Row]], axis: str, metric: str) -> Figure:
    figure = Figure(figsize=(5, 3.8), layout="constrained")
    axes = figure.subplots()
    called = labels(curves)
    for (estimator, rows), marker in zip(curves.items(), cycle(MARKERS), strict=False):
        style: dict[str, Any] = (
            {"linestyle": "--", "color": "0.2"} if estimator == BOUND else {"marker": marker}
        )
        errors = [row[f"{metric}_standard_error"] for row in rows]
        values = [row[metric] for row in rows]
        axes.errorbar(
            [row[axis] for row in rows], values, errors, capsize=2, label=called[estimator], **style
        )
    if metric not in LINEAR and any(row[metric] > 0 for rows in curves.values() for row in rows):
        axes.set_yscale("log", nonpositive="mask")
        axes.set_ylim(bottom=max(axes.get_ylim()[0], LOWEST.get(metric, 0.0)))
    axes.set(xlabel=AXES[axis], ylabel=METRICS[metric])
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure


def save_distribution(
    nmses: Mapping[float, Mapping[str, Sequence[float]]], axis: str, path: Path
) -> np.ndarray:
    """Write `distribution_figure` as a PNG; returns its pixels."""
    pixels = rendered(distribution_figure(nmses, axis))
    save_pixels(pixels, path)
    return pixels


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
