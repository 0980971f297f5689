"""Compressed networks beside those that they came from: parameters, IoU, time a picture, and a figure of them."""

import json
from collections.abc import Sequence
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
from unfoldkit.tools.benchmarks.family import times
from unfoldkit.tools.benchmarks.timing import setting

Row = dict[str, Any]
AXES = {
    "parameters": ("parameters, thousands", 1e-3),
    "seconds": ("milliseconds a picture on the CPU", 1e3),
    "gpu_seconds": ("milliseconds a picture on a GPU", 1e3),
}


def measure(
    weights: Sequence[str], dataset: str | None, root: str | None, rounds: int, file: str | None
) -> int:
    """Measure weights files, NAME=FILE each; print a table, and write JSON that `draw` takes."""
    keep_memory()
    torch.backends.cudnn.benchmark = True
    gpu = torch.cuda.is_available()
    files = dict(named(given) for given in weights)
    nets: dict[str, rpcanet.Unfolding] = {name: rpcanet.load_weights(path) for name, path in files.items()}
    seconds = times(nets, "cpu", rounds)
    gpu_seconds = times(nets, "cuda", rounds) if gpu else dict.fromkeys(nets)
    rows = [
        {
            "network": name,
            "parameters": numbers(net),
            "seconds": seconds[name],
            "gpu_seconds": gpu_seconds[name],
            "iou": None if dataset is None else iou(files[name], dataset, root, "cuda" if gpu else "cpu"),
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
    """IoU against each axis of `AXES`; rows of one network in several files are one point, the later file's first.

    Networks are called METHOD SIZE, such as "separable 0.5"; those of one method are a curve.
    """
    rows: dict[str, Row] = {}
    for file in files:
        for row in json.loads(Path(file).read_text(encoding="utf-8"))["rows"]:
            known = {key: value for key, value in row.items() if value is not None}
            rows[row["network"]] = rows.get(row["network"], {}) | known
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (key, (label, factor)) in zip(panels, AXES.items(), strict=True):
        for k, (method, points) in enumerate(curves(rows, key).items()):
            x, y = [factor * row[key] for row in points], [100 * row["iou"] for row in points]
            axes.plot(x, y, f"C{k}{MARKERS[k % len(MARKERS)]}-", linewidth=1, label=method)
        axes.set(xlabel=label, xlim=(0, None))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("IoU, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
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
