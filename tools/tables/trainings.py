"""Training runs beside what the papers state, from tools/results/runs.

Of each run there are NAME.json, its run.json, and NAME-best.json and NAME-last.json, what evaluate.py measured of
its weights (of a recipe that chooses none, the last alone).
"""

from pathlib import Path
from typing import Any, NamedTuple

from .markdown import Marks, Row, markdown, marks_of
from .records import read

SEED = 42
HEADER = [
    *("data set", "network", "recipe", "epochs", "seed", "published", "best", "last", "difference"),
    *("mean of the last tenth", "looks", "s", "device"),
]


class Run(NamedTuple):
    """record: what train.py keeps of it.  measured: its weights' numbers, by "best" and "last"."""

    record: dict[str, Any]
    measured: dict[str, dict[str, Any]]

    @property
    def data_set(self) -> str:
        return str(self.record["data"]["name"])

    @property
    def title(self) -> str:
        return f"RPCANet++ S{self.record['network']['stages']}"

    @property
    def own(self) -> bool:
        return bool(self.record["data"]["held_out"])

    @property
    def chosen(self) -> dict[str, Any]:
        """The numbers of the best weights by the published rule, of our own recipe of the last."""
        return self.measured["last" if self.own else "best"]

    @property
    def result(self) -> float:
        """Their IoU in percent."""
        return 100 * float(self.chosen["iou"])


def results(folder: Path) -> list[dict[str, Any]]:
    """What evaluate.py measured of every run with the usual seed."""
    runs = runs_in(folder / "runs")
    return [run.chosen for run in runs if run.record["recipe"]["seed"] == SEED]


def tables(folder: Path) -> dict[Marks, str]:
    """The runs by the published recipe and by ours, and the README's lines."""
    runs, published = runs_in(folder / "runs"), read(folder / "published.json")
    return {
        marks_of("trainings"): markdown(HEADER, [row(run, published) for run in runs]),
        marks_of("published-rows"): lines(runs, published),
    }


def runs_in(folder: Path) -> list[Run]:
    """Every run, by data set, recipe, stages and seed."""
    found = []
    for path in sorted(folder.glob("*.json")):
        if path.stem.endswith(("-best", "-last")):
            continue
        measured = {kind: path.with_name(f"{path.stem}-{kind}.json") for kind in ("best", "last")}
        found.append(Run(read(path), {kind: read(file) for kind, file in measured.items() if file.exists()}))
    return sorted(
        found,
        key=lambda run: (
            run.data_set,
            run.own,
            run.record["network"]["stages"],
            run.record["recipe"]["seed"],
        ),
    )


def row(run: Run, published: dict[str, Any]) -> Row:
    from unfoldkit.datasets import record_of

    recipe, looks, stated = run.record["recipe"], run.record["looks"], stated_of(run, published)
    best, last = (
        f"{100 * run.measured[kind]['iou']:.2f}" if kind in run.measured else "" for kind in ("best", "last")
    )
    return [
        record_of(run.data_set).title,
        run.title,
        "own" if run.own else "published",
        str(recipe["epochs"]),
        str(recipe["seed"]),
        f"{stated:.2f}",
        best,
        last,
        f"{run.result - stated:+.2f}",
        "" if run.own else f"{100 * looks['mean']:.2f}",
        str(looks["looks"]),
        str(run.record["seconds"]),
        run.record["device"],
    ]


def stated_of(run: Run, published: dict[str, Any]) -> float:
    return float(published[run.data_set][run.title]["iou"])


def lines(runs: list[Run], published: dict[str, Any]) -> str:
    """A line for each data set: the published IoU of S3 and S6, ours and the difference."""
    from unfoldkit.datasets import record_of

    found: dict[str, list[str]] = {}
    for run in runs:
        stated, stages = stated_of(run, published), run.record["network"]["stages"]
        if stages in (3, 6) and run.record["recipe"]["seed"] == SEED:
            kind = ", own recipe," if run.own else ""
            text = f"S{stages}{kind} {run.result:.2f} (published {stated:.2f}, {run.result - stated:+.2f})"
            found.setdefault(record_of(run.data_set).title, []).append(text)
    return "\n".join(f"- {title}: {'; '.join(texts)}." for title, texts in found.items())
