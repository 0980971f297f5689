"""Figures of an estimate, iteration by iteration, in colours that stay in order in grey."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from unfoldkit.common.figures import line_style

if TYPE_CHECKING:
    from torch import Tensor

CURVES = {
    "nmse": ("NMSE", "log"),
    "cost": ("marginal cost", "linear"),
    "change": ("relative change of the prior variances", "log"),
    "noise_variance": ("noise variance", "log"),
}
DYNAMIC_RANGE = 1e-6  # of the prior variances that are told apart


def convergence_figure(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """NMSE, cost, change and noise variance of each estimator against its iterations."""
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    for axes, (quantity, (label, scale)) in zip(figure.subplots(2, 2).flat, CURVES.items(), strict=True):
        for k, (name, drawn) in enumerate(curves.items()):
            values = drawn[quantity]
            every = max(1, len(values) // 8)
            style = line_style(k, len(curves))
            axes.plot(range(1, len(values) + 1), values, label=name, markevery=(0, every), **style)
        axes.set(xlabel="iteration", ylabel=label, yscale=scale)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return figure


def hyperparameter_figure(path: "Sequence[Tensor]", support: "Sequence[Tensor] | None" = None) -> Figure:
    """Prior variances g_i, (T, N_i) each, over index and iteration; marks above show the true support."""
    figure = Figure(figsize=(2.6 * len(path) + 0.6, 3.4), layout="constrained")
    for i, (axes, g) in enumerate(zip(figure.subplots(1, len(path), squeeze=False).flat, path, strict=True)):
        values = g.numpy()
        top = float(values.max()) or 1.0
        shown = axes.imshow(
            np.maximum(values, DYNAMIC_RANGE * top),
            aspect="auto",
            cmap="cividis",
            norm=LogNorm(DYNAMIC_RANGE * top, top),
            extent=(-0.5, values.shape[1] - 0.5, len(values) + 0.5, 0.5),
            interpolation="nearest",
        )
        axes.set(xlabel=f"index in factor {i + 1}", title=f"$g_{{{i + 1}}}$")
        if i == 0:
            axes.set_ylabel("iteration")
        if support is not None:
            at = np.flatnonzero(support[i].numpy())
            axes.plot(at, np.full(len(at), 0.5), "kv", markersize=5, clip_on=False)
        figure.colorbar(shown, ax=axes, label="prior variance" if i == len(path) - 1 else None)
    return figure


def support_figure(found: "Mapping[str, Tensor]", support: "Sequence[Tensor] | None") -> Figure:
    """Energy of each estimate (N_1, ..., N_I) along each factor, as a share of all; crosses: true support."""
    first = next(iter(found.values()))
    figure = Figure(figsize=(7.2, 2.3 * first.ndim), layout="constrained")
    for i, axes in enumerate(figure.subplots(first.ndim, 1, squeeze=False).flat):
        _shares(axes, {name: _along(x, i) for name, x in found.items()})
        axes.set(xlabel=f"index in factor {i + 1}", ylabel="share of the energy")
        if support is not None:
            at = np.flatnonzero(support[i].numpy())
            axes.plot(at, np.full(len(at), 1.05), "kx", clip_on=False, label="true support")
        axes.legend(fontsize=7, ncols=2)
    return figure


def channel_figure(
    truth: "Tensor", found: "Mapping[str, Tensor]", name: str, across: str, down: str
) -> Figure:
    """|truth|, |estimate| and |estimate - truth|, on one scale, of the first of any leading axes.

    truth and each of found: (..., rows, columns).
    """
    true = _first(truth)
    pictures = {"truth": np.abs(true)}
    for estimator, picture in found.items():
        pictures[estimator] = np.abs(_first(picture))
        pictures[f"{estimator}, error"] = np.abs(_first(picture) - true)
    height, width = true.shape
    wide = width > 2 * height
    rows = len(found) + 1
    figure = Figure(figsize=(7.2, (1.5 if wide else 2.4) * rows), layout="constrained")
    grid = figure.subplots(rows, 2, squeeze=False)
    grid[0, 1].set_axis_off()
    places = [grid[0, 0], *grid[1:].flat]
    for axes, (title, picture) in zip(places, pictures.items(), strict=True):
        shown = axes.imshow(picture, cmap="cividis", vmin=0, vmax=np.abs(true).max(), aspect="auto")
        axes.set_title(f"{name}, {title}", fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in grid[:, 0]:
        axes.set_ylabel(down, fontsize=7)
    for axes in grid[-1]:
        axes.set_xlabel(across, fontsize=7)
    figure.colorbar(shown, ax=grid, label=f"{name} (linear)", aspect=40)
    return figure


def _along(x: "Tensor", axis: int) -> np.ndarray:
    """(N_axis,)."""
    energy = np.abs(x.numpy()) ** 2
    total = energy.sum() or 1.0
    return energy.sum(tuple(i for i in range(energy.ndim) if i != axis)) / total


def _shares(axes: Axes, shares: Mapping[str, np.ndarray]) -> None:
    width = 0.8 / len(shares)
    for k, (name, values) in enumerate(shares.items()):
        colour = line_style(k, len(shares))["color"]
        axes.bar(
            np.arange(len(values)) + (k - (len(shares) - 1) / 2) * width,
            values,
            width,
            color=colour,
            label=name,
        )
    axes.set_ylim(0, 1.1)
    axes.grid(alpha=0.3)


def _first(x: "Tensor") -> np.ndarray:
    """(rows, columns)."""
    return x.reshape(-1, *x.shape[-2:])[0].numpy()
