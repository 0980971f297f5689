"""Figures of what happens stage by stage, in colour maps whose lightness rises evenly.

Each function gives a matplotlib figure. Colours are of cividis and viridis, which stay in order in grey and for
colour-blind readers; lines differ in markers too.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unfoldkit.common.figures import line_style

from .measures import LEADING

INSET = 10  # singular values in the inset of a spectrum


def stage_maps(
    rows: Mapping[str, Sequence[np.ndarray]], columns: Mapping[str, tuple[str, str]], title: str = ""
) -> Figure:
    """Heat maps, a row for each stage and a column for each quantity, each map with its own scale beside it.

    The scale of a map in cividis spans its levels from 0.5% to 99.5%, of one in viridis all of them.

    rows: a stage's label and its planes (height, width), as many as there are columns or fewer.
    columns: a quantity's symbol, and its unit and colour map.

    >>> plane = np.eye(8)
    >>> columns = {"B": ("level", "cividis"), "O": ("", "viridis")}
    >>> figure = stage_maps({"input": [plane], "1": [plane, plane]}, columns)
    >>> [axes.get_title() for axes in figure.axes if axes.get_title()]
    ['input (level)', '$B_{1}$ (level)', '$O_{1}$']
    """
    height, width = next(iter(rows.values()))[0].shape
    size = 2.0
    figure = Figure(figsize=(1.25 * size * len(columns), (size * height / width + 0.35) * len(rows) + 0.4))
    figure.suptitle(title, fontsize=10, y=1 - 0.12 / figure.get_figheight())
    grid = figure.add_gridspec(
        len(rows),
        len(columns),
        left=0.02,
        right=0.95,
        bottom=0.15 / figure.get_figheight(),
        top=1 - 0.55 / figure.get_figheight(),
        wspace=0.3,
        hspace=0.35 / (size * height / width),
    )
    for i, (label, planes) in enumerate(rows.items()):
        for j, (plane, (symbol, (unit, colours))) in enumerate(zip(planes, columns.items(), strict=False)):
            axes = figure.add_subplot(grid[i, j])
            name = label if len(planes) < len(columns) else f"${symbol}_{{{label}}}$"
            axes.set_title(f"{name} ({unit})" if unit else name, fontsize=8, pad=3)
            axes.set_axis_off()
            tail = 0.005 if colours == "cividis" else 0.0
            low, high = np.quantile(plane, (tail, 1 - tail))
            shown = axes.imshow(plane, cmap=colours, vmin=low, vmax=high)
            bar = figure.colorbar(
                shown,
                cax=axes.inset_axes((1.02, 0, 0.05, 1)),
                ticks=MaxNLocator(5, prune="both"),
                extend="both" if tail else "neither",
            )
            bar.ax.tick_params(labelsize=6, length=2, pad=1)
    return figure


def spectrum_figure(mean: np.ndarray, std: np.ndarray, labels: Sequence[str]) -> Figure:
    """Singular values s_i of max(B_k, 0) against i, mean and standard deviation; the leading ten in the inset.

    mean, std: (K + 1, n), the pictures' own first.  labels: K + 1.

    >>> spectrum_figure(np.ones((2, 16)), np.zeros((2, 16)), ["D", "1"]).axes[0].get_ylabel()
    'singular value, mean ± standard deviation'
    """
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    inset = axes.inset_axes((0.36, 0.55, 0.62, 0.42))
    index = np.arange(1, mean.shape[1] + 1)
    for k, (values, deviation, label) in enumerate(zip(mean, std, labels, strict=True)):
        style = line_style(k, len(labels))
        axes.plot(index, values, label=label, markevery=(3 * k, max(1, len(index) // 8)), **style)
        axes.fill_between(
            index, np.maximum(values - deviation, 1e-12), values + deviation, color=style["color"], alpha=0.08
        )
        inset.errorbar(index[:INSET], values[:INSET], deviation[:INSET], capsize=2, **style)
    positive = mean[mean > 1e-7 * mean.max(initial=0)]
    if positive.size:
        axes.set_yscale("log")
        axes.set_ylim(bottom=positive.min() / 2, top=50 * positive.max())
        inset.set_yscale("log", nonpositive="mask")
        inset.set_ylim(bottom=max(positive.min(), mean[:, :INSET].min()) / 2)
    axes.set(xlabel="index $i$ of the singular value", ylabel="singular value, mean ± standard deviation")
    inset.set_title(f"leading {min(INSET, len(index))}", fontsize=8, pad=2)
    inset.tick_params(labelsize=7)
    for part in (axes, inset):
        part.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="lower left", ncols=2)
    return figure


def sparsity_figure(mean: np.ndarray, std: np.ndarray, labels: Sequence[str], axis: str = "stage") -> Figure:
    """Share of the pixels of O_k above 0 in percent against k; mean, std and labels: (K,).

    >>> sparsity_figure(np.array([0.5, 0.1]), np.zeros(2), ["1", "2"]).axes[0].get_ylabel()
    'pixels of $O_k$ above 0 (%)'
    """
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    _profile(axes, {"": (100 * mean, 100 * std)}, labels)
    axes.set(xlabel=axis, ylabel="pixels of $O_k$ above 0 (%)", ylim=(0, None))
    return figure


def profiles_figure(
    mean: Mapping[str, np.ndarray], std: Mapping[str, np.ndarray], labels: Sequence[str], unit: str, axis: str
) -> Figure:
    """Rank, energy, fidelity and, where there are any, contrast prior, memory and noise, against the stage.

    mean, std: as of `rpcanet.inside.interpretation.interior_measures`.  labels: K.  unit: of the levels.
    """
    drawn = {
        "effective_rank": ("effective rank of max($B_k$, 0)", 1.0),
        "energy": ("energy in the leading values (%)", 100.0),
        "fidelity": (f"$||D - B_k - O_k||_F$ ({unit})", 1.0),
        "contrast": ("contrast prior, root mean square of $w_k$", 1.0),
        "memory_change": ("memory's change $||m_k - m_{k-1}|| / ||m_{k-1}||$ (%)", 100.0),
        "noise": (f"noise, root mean square of $N_k$ ({unit})", 1.0),
    }
    present = [name for name in drawn if name in mean]
    rows = -(-len(present) // 2)
    figure = Figure(figsize=(7.2, 2.7 * rows), layout="constrained")
    for i, name in enumerate(present):
        axes = figure.add_subplot(rows, 2, i + 1)
        label, scale = drawn[name]
        values, deviation = scale * mean[name], scale * std[name]
        lines = {"": (values, deviation)}
        if name == "energy":
            lines = {f"leading {r}": (values[:, j], deviation[:, j]) for j, r in enumerate(LEADING)}
        ticks = ["$D$", *labels] if len(values) > len(labels) else labels[-len(values) :]
        _profile(axes, lines, ticks)
        if values.min() > 0 and values.max() > 50 * values.min():
            axes.set_yscale("log")
        axes.set_ylabel(label, fontsize=8)
        axes.set_xlabel(axis, fontsize=8)
        axes.tick_params(labelsize=7)
    return figure


def curves_figure(rates: Mapping[str, np.ndarray]) -> Figure:
    """Precision over recall, and the true over the false positive rate, of `rpcanet.metrics.PixelCurves`.

    The second has no points where no pixel is a false positive at any threshold, as where masks are full.
    """
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    colour = colormaps["cividis"](0.15)
    left.plot(rates["recall"], rates["precision"], color=colour)
    left.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="pixels, by threshold")
    positive = rates["false_positive_rate"] > 0
    right.plot(rates["false_positive_rate"][positive], rates["recall"][positive], color=colour)
    right.set(xlabel="false positive rate", ylabel="true positive rate", ylim=(0, 1.02))
    if positive.any():
        right.set_xscale("log")
    right.set_title("pixels, by threshold")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def _profile(axes: Axes, lines: Mapping[str, tuple[np.ndarray, np.ndarray]], labels: Sequence[str]) -> None:
    at = np.arange(len(labels))
    for k, (name, (values, deviation)) in enumerate(lines.items()):
        axes.errorbar(at, values, deviation, capsize=3, label=name, **line_style(k, len(lines)))
    axes.set_xticks(at, labels)
    axes.grid(alpha=0.3)
    if len(lines) > 1:
        axes.legend(fontsize=7)
