"""Training runs beside what the papers state, from tools/results/trainings.

Of each run there is NAME.json, its run.json, and what evaluate.py measured of its weights, NAME-best.json and
NAME-last.json, as far as they were kept and count: of our own recipe the last alone.
"""

from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from .markdown import Marks, Row, markdown, marks_of, read

HEADER = [
    *("data set", "network", "recipe", "epochs", "seed", "published", "best", "last", "difference"),
    *("best look", "mean of the last tenth", "looks", "s", "device"),
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
    def recipe(self) -> str:
        """Whose recipe it is, and what of the authors' it leaves out."""
        from unfoldkit.datasets import record_of

        published = record_of(self.data_set).recipe
        if self.own:
            return "own"
        return (
            "published" if self.record["data"]["augment"] == published.augment else "published, not augmented"
        )

    @property
    def result(self) -> dict[str, Any] | None:
        """The numbers of the best weights by the published rule, of our own recipe of the last, where measured."""
        return self.measured.get("last" if self.own else "best")


def results(folder: Path) -> list[dict[str, Any]]:
    """What evaluate.py measured of every run by our own recipe or the authors' whole one."""
    runs = runs_in(folder / "trainings")
    return [run.result for run in runs if run.result and run.recipe in ("own", "published")]


def tables(folder: Path) -> dict[Marks, str]:
    """The table of the runs, and the README's lines."""
    runs, published = runs_in(folder / "trainings"), read(folder / "published.json")
    return {
        marks_of("trainings"): markdown(HEADER, [row(run, published) for run in runs]),
        marks_of("published-rows"): lines(runs, published),
    }


def runs_in(folder: Path) -> list[Run]:
    """Every run, by data set, recipe, stages and seed."""
    found = []
    for path in folder.glob("*.json"):
        if path.stem.endswith(("-best", "-last")):
            continue
        measured = {kind: path.with_name(f"{path.stem}-{kind}.json") for kind in ("best", "last")}
        found.append(Run(read(path), {kind: read(file) for kind, file in measured.items() if file.exists()}))
    return sorted(found, key=lambda run: (run.data_set, run.recipe, run.title, run.record["recipe"]["seed"]))


def row(run: Run, published: dict[str, Any]) -> Row:
    from unfoldkit.datasets import record_of

    recipe, looks, stated = run.record["recipe"], run.record["looks"], stated_of(run, published)
    return [
        record_of(run.data_set).title,
        run.title,
        run.recipe,
        str(recipe["epochs"]),
        str(recipe["seed"]),
        f"{stated:.2f}",
        *(percent(run.measured.get(kind)) for kind in ("best", "last")),
        "" if run.result is None else f"{100 * run.result['iou'] - stated:+.2f}",
        *(f"{100 * looks[name]:.2f}" for name in ("best", "mean")),
        str(looks["looks"]),
        str(run.record["seconds"]),
        run.record["device"],
    ]


def stated_of(run: Run, published: dict[str, Any]) -> float:
    return float(published[run.data_set][run.title]["iou"])


def percent(measured: dict[str, Any] | None) -> str:
    return "" if measured is None else f"{100 * measured['iou']:.2f}"


def lines(runs: list[Run], published: dict[str, Any]) -> str:
    """A line a data set, of the papers' recipes: our IoU, the published one, the difference, other seeds."""
    from unfoldkit.datasets import record_of

    measured = [run for run in runs if run.recipe == "published" and run.result]
    found: dict[str, list[str]] = {}
    for (data_set, title), group in groupby(measured, key=lambda run: (run.data_set, run.title)):
        first, *others = group
        stated = stated_of(first, published)
        seeds = [f"; seed {run.record['recipe']['seed']}: {percent(run.result)}" for run in others]
        difference = f"{float(percent(first.result)) - stated:+.2f}"
        text = f"{title}, {percent(first.result)} (published {stated:.2f}, {difference}{''.join(seeds)})"
        found.setdefault(record_of(data_set).title, []).append(text)
    return "\n".join(f"- {title}: {'; '.join(texts)}." for title, texts in found.items())
