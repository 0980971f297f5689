"""Compressed networks beside those that they came from: parameters, IoU, time a picture, and a figure of them."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from unfoldkit import rpcanet
from unfoldkit.common.console import keep_memory
from unfoldkit.common.figures import MARKERS, save_figure
from unfoldkit.common.files import write_whole
from unfoldkit.rpcanet.compression.compress import numbers
from unfoldkit.tools.benchmarks.family import SETS, times
from unfoldkit.tools.benchmarks.timing import setting
from unfoldkit.tools.tables.compression import merged

Row = dict[str, Any]
AXES = {
    "parameters": ("parameters, thousands", 1e-3),
    "seconds": ("milliseconds a picture on the CPU", 1e3),
    "gpu_seconds": ("milliseconds a picture on a GPU", 1e3),
}


def measure(
    weights: Sequence[str],
    device: str | None,
    dataset: str | None,
    root: str | None,
    times_alone: bool,
    rounds: int,
    file: str | None,
) -> int:
    """Measure weights files, NAME=FILE each; print a table, and write JSON that `draw` takes."""
    keep_memory()
    gpu = device != "cpu" and torch.cuda.is_available()
    files = dict(named(given) for given in weights)
    nets: dict[str, rpcanet.Unfolding] = {name: rpcanet.load_weights(path) for name, path in files.items()}
    none = dict.fromkeys(nets)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        seconds = times(nets, "cpu", rounds) if device != "cuda" else none
        gpu_seconds = times(nets, "cuda", rounds) if gpu else none
    rows = [
        {
            "network": name,
            "parameters": numbers(net),
            "seconds": seconds[name],
            "gpu_seconds": gpu_seconds[name],
            "iou": None if times_alone else iou(files[name], dataset, root, "cuda" if gpu else "cpu"),
        }
        for name, net in nets.items()
    ]
    if file:
        content = {"setting": setting("cuda" if gpu else "cpu"), "dataset": dataset, "rows": rows}
        write_whole(file, json.dumps(content, indent=2) + "\n")
    Console().print(table(rows))
    return 0


def named(given: str) -> tuple[str, str]:
    name, equals, path = given.partition("=")
    return (name, path) if equals else (Path(given).stem, given)


def iou(weights: str, dataset: Any, root: str | None, device: str) -> float | None:
    """Of the test pictures, as a fraction; None without a data set."""
    if dataset is None:
        return None
    options = rpcanet.Evaluation(dataset, weights=weights, root=root, device=device)
    return rpcanet.evaluate_data_set(options).values["iou"]


def table(rows: Sequence[Row]) -> Table:
    result = Table("network", "parameters", "IoU", "CPU, ms", "GPU, ms")
    for row in rows:
        scaled = (
            (row[key], factor) for key, factor in (("iou", 100), ("seconds", 1e3), ("gpu_seconds", 1e3))
        )
        cells = ("" if value is None else f"{factor * value:.2f}" for value, factor in scaled)
        result.add_row(row["network"], f"{row['parameters']:,}", *cells)
    return result


def draw(files: Sequence[str], out: str) -> int:
    """IoU against each axis of `AXES`, a line of panels for each data set.

    Rows of one network and data set in several files are one point, the later file's first. Networks are called
    METHOD SIZE, such as "separable 0.5"; those of one method are a curve.
    """
    found = merged(files)
    methods = {method: k for k, method in enumerate(dict.fromkeys(map(method_of, chain(*found.values()))))}
    figure = Figure(figsize=(12, 1.2 + 3.6 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), len(AXES), sharey="row", squeeze=False)
    for line, (dataset, rows) in zip(panels, found.items(), strict=True):
        for axes, (key, (label, factor)) in zip(line, AXES.items(), strict=True):
            axes.margins(x=0.15)
            for method, points in curves(rows, key).items():
                x, y = [factor * row[key] for row in points], [100 * row["iou"] for row in points]
                k = methods[method]
                axes.plot(x, y, f"C{k % 10}{MARKERS[k % len(MARKERS)]}-", linewidth=1, label=method)
            axes.set(xlabel=label, xlim=(0, None))
            axes.grid(alpha=0.3)
        line[0].set_ylabel(f"IoU, %, {SETS.get(dataset, dataset)}")
    known = {
        label: handle
        for axes in panels.flat
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(known.values(), known.keys(), loc="outside lower center", ncols=4)
    save_figure(figure, out)
    return 0


def curves(rows: dict[str, Row], key: str) -> dict[str, list[Row]]:
    """The rows of every method, in order, that have `key` and an IoU, smallest first."""
    found: dict[str, list[Row]] = {method_of(name): [] for name, row in rows.items() if "iou" in row}
    for name, row in rows.items():
        if key in row and "iou" in row:
            found[method_of(name)].append(row)
    return {method: sorted(points, key=lambda row: row[key]) for method, points in found.items()}


def method_of(name: str) -> str:
    method, _, size = name.rpartition(" ")
    return method if size.replace(".", "", 1).isdigit() else name
