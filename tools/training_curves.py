"""Draw the curves of training runs from what they logged for TensorBoard.

    python tools/training_curves.py runs/neu_seg_s6 --metric iou --out curves.png

The left axes show the training loss, a running mean over an epoch; the right axes the validation metric after each
epoch, with what papers state as dashed lines if --published gives it: --published "RPCANet++ S6=0.8032".
"""

from collections import defaultdict
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

from unfoldkit.common.console import described_parser, one_line_errors
from unfoldkit.tools.evaluate import LABELS

LOGGED = ("train/loss", "epoch")


class Curves(NamedTuple):
    """Per epoch: mean training loss, and a validation metric."""

    loss: list[float]
    metric: list[float]


def read(run: Path, metric: str) -> Curves:
    """The curves that a run of tools/train.py logged; raises ValueError where there are none."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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


def draw(runs: dict[str, Curves], metric: str, published: dict[str, float], out: Path) -> None:
    from matplotlib.figure import Figure

    from unfoldkit.common.figures import MARKERS, save_figure

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


def stated(values: list[str]) -> dict[str, float]:
    try:
        return {name: float(value) for name, value in (text.rsplit("=", 1) for text in values)}
    except ValueError:
        raise ValueError(f"--published must be NAME=NUMBER, got {' '.join(values)}") from None


def main() -> None:
    parser = described_parser("training_curves.py", __doc__)
    parser.add_argument("runs", nargs="+", help="folders that tools/train.py left")
    parser.add_argument(
        "--metric", type=str, default="iou", help="a validation metric, such as iou, f1 or pd"
    )
    parser.add_argument("--published", nargs="*", type=str, default=[], help="NAME=VALUE of dashed lines")
    parser.add_argument("--out", type=str, default="curves.png", help="the picture")
    options = parser.parse_args()
    with one_line_errors("training_curves.py"):
        runs = {Path(run).name: read(Path(run), options.metric) for run in options.runs}
        draw(runs, options.metric, stated(options.published), Path(options.out))
        print(options.out)


if __name__ == "__main__":
    main()
