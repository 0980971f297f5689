"""The curves of training runs, read from what they logged for TensorBoard, as a picture."""

from collections import defaultdict
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unfoldkit.common.figures import MARKERS, save_figure

from ..names import LABELS

LOGGED = ("train/loss", "epoch")


class Curves(NamedTuple):
    """Per epoch: mean training loss, and a validation metric."""

    loss: list[float]
    metric: list[float]


def read_curves(run: Path, metric: str) -> Curves:
    """The curves that a run of tools/train.py logged.

    Raises FileNotFoundError where `run` is not the folder of one, ValueError where the curves are not there.
    """
    if not (run / "tensorboard").is_dir():
        raise FileNotFoundError(f"{run}: expected the folder of a training run, with tensorboard/ in it")
    logged = EventAccumulator(str(run / "tensorboard"), {"scalars": 0}).Reload()
    tags = logged.Tags()["scalars"]
    missing = [tag for tag in (*LOGGED, f"val/{metric}") if tag not in tags]
    if missing:
        raise ValueError(
            f"{run / 'tensorboard'}: expected {', '.join(missing)}, found {', '.join(tags) or 'nothing'}"
        )
    epochs = {event.step: round(event.value) for event in logged.Scalars("epoch")}
    losses: dict[int, list[float]] = defaultdict(list)
    for event in logged.Scalars("train/loss"):
        losses[epochs[event.step]].append(event.value)
    means = [sum(values) / len(values) for _, values in sorted(losses.items())]
    return Curves(means, [event.value for event in logged.Scalars(f"val/{metric}")])


def draw_curves(runs: dict[str, Curves], metric: str, published: dict[str, float], out: Path) -> None:
    """A picture: the loss on the left axes, the metric on the right, what papers state as dashed lines."""

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (name, curves), marker in zip(runs.items(), cycle(MARKERS), strict=False):
        for axes, values in ((left, curves.loss), (right, curves.metric)):
            axes.plot(range(1, len(values) + 1), values, marker=marker, markersize=3, label=name)
    for (name, value), style in zip(published.items(), cycle(("--", ":", "-.")), strict=False):
        right.axhline(value, color="0.3", linestyle=style, linewidth=1, label=f"{name}, as published")
    left.set(xlabel="epoch", ylabel="training loss, mean over the epoch")
    right.set(xlabel="epoch", ylabel=f"validation {LABELS.get(metric, metric)}")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save_figure(figure, out)
