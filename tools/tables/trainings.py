"""Training runs beside what the papers state, from tools/results/trainings, and those that differ by one option.

The latter lie in tools/results/ablation. Of each run there is NAME.json, its run.json, and what evaluate.py
measured of its weights, NAME-best.json and NAME-last.json, as far as they were kept.
"""

from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from .markdown import Marks, Row, markdown, marks_of, read

HEADER = [
    *("data set", "network", "recipe", "epochs", "seed", "published", "best", "last", "difference"),
    *("best look", "mean of the last tenth", "looks", "s", "device"),
]
ABLATION = ["data set", "network", "epochs", "the published recipe and", "IoU", "difference", "looks", "s"]

OWN_LOSS, OWN_STEPS = "batch_iou", 10_000  # of tools/configs/own.yaml


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
    def steps(self) -> int:
        from unfoldkit.datasets import record_of

        pictures = record_of(self.data_set).counts[self.record["data"]["train_split"]]
        return int(self.record["recipe"]["epochs"] * (pictures // self.record["data"]["batch_size"]))

    @property
    def recipe(self) -> str:
        """Whose recipe it is, and in what it is not the authors'."""
        from unfoldkit.datasets import record_of

        loss = self.record["recipe"]["loss"]
        own = loss == OWN_LOSS and self.steps >= OWN_STEPS
        augmented = record_of(self.data_set).recipe.augment == self.record["data"]["augment"]
        least_steps = self.record["recipe"].get("least_steps", 0)
        other = [f"`{loss}`"] * (not own and loss != "soft_iou") + ["not augmented"] * (not augmented)
        other += [f"`least_steps` {least_steps}"] * (least_steps > OWN_STEPS)
        other += ["float32"] * (self.record["machine"]["precision"] == "32-true")
        return ", ".join(["own" if own else "published", *other])

    @property
    def result(self) -> dict[str, Any] | None:
        """The numbers of the weights that count, where measured: of the best look, with our own loss the last."""
        return self.measured.get("last" if self.record["recipe"]["loss"] == OWN_LOSS else "best")


def results(folder: Path) -> list[dict[str, Any]]:
    """What evaluate.py measured of every run by the authors' whole recipe."""
    runs = runs_in(folder / "trainings")
    return [run.result for run in runs if run.result and run.recipe == "published"]


def tables(folder: Path) -> dict[Marks, str]:
    """The table of the runs, and the README's lines."""
    runs, published = runs_in(folder / "trainings"), read(folder / "published.json")
    return {
        marks_of("trainings"): markdown(HEADER, [row(run, published) for run in runs]),
        marks_of("published-rows"): lines(runs, published),
        marks_of("ablation"): markdown(ABLATION, ablation(runs_in(folder / "ablation"))),
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


def ablation(runs: list[Run]) -> list[Row]:
    """Of runs of one length the one that the others differ least from, then what each changes and earns."""
    from unfoldkit.datasets import record_of

    def kind(run: Run) -> tuple[str, str, int]:
        return run.data_set, run.title, run.record["recipe"]["epochs"]

    rows = []
    for (data_set, title, epochs), group in groupby(sorted(runs, key=kind), key=kind):
        together = list(group)
        base = min(together, key=lambda run: sum(len(changes(other, run)) for other in together))
        for run in sorted(together, key=lambda run: changes(run, base)):
            iou = run.measured["last"]["iou"]
            options = " ".join(f"`{option}`" for option in changes(run, base))
            rows.append(
                [
                    *(record_of(data_set).title, title, str(epochs)),
                    options or "nothing else",
                    f"{100 * iou:.2f}",
                    f"{100 * (iou - base.measured['last']['iou']):+.2f}" if options else "",
                    ", ".join(f"{100 * look:.1f}" for look in run.record["curve"]),
                    str(run.record["seconds"]),
                ]
            )
    return rows


def changes(run: Run, base: Run) -> list[str]:
    """The options of train.py that `run` sets otherwise than `base`."""
    return [
        f"--{section}.{name} {value}".lower()
        for section in ("network", "data", "recipe")
        for name, value in run.record[section].items()
        if value != base.record[section][name]
    ]


def stated_of(run: Run, published: dict[str, Any]) -> float:
    return float(published[run.data_set][run.title]["iou"])


def percent(measured: dict[str, Any] | None) -> str:
    return "" if measured is None else f"{100 * measured['iou']:.2f}"


def lines(runs: list[Run], published: dict[str, Any]) -> str:
    """A line a data set: the published IoU, ours by the papers' recipes and by our own, other seeds."""
    from unfoldkit.datasets import record_of

    measured = [run for run in runs if run.recipe in ("own", "published") and run.result]
    found: dict[str, list[str]] = {}

    def kind(run: Run) -> tuple[str, str]:
        return run.data_set, run.title

    for (data_set, title), group in groupby(sorted(measured, key=kind), key=kind):
        together = list(group)
        stated = stated_of(together[0], published)
        ours = [
            f"{whose} {compare(ious, stated)}"
            for recipe, whose, compare in (("published", "ours", best_of), ("own", "own recipe", each_of))
            if (ious := [100 * run.result["iou"] for run in together if run.result and run.recipe == recipe])
        ]
        found.setdefault(record_of(data_set).title, []).append(f"{title} {stated:.2f}, {', '.join(ours)}")
    return "\n".join(f"- {title}: {'; '.join(texts)}." for title, texts in found.items())


def best_of(ious: list[float], stated: float) -> str:
    """The best seed's IoU, its difference from what is stated, and the median of all seeds, or the other of two.

    >>> best_of([70.1, 8.8, 70.4], 70.35), best_of([8.8, 70.4], 70.35)
    ('70.40 (+0.05; best of 3 seeds, median 70.10)', '70.40 (+0.05; other seed: 8.80)')
    """
    if len(ious) < 3:
        return each_of(sorted(ious, reverse=True), stated)
    return (
        f"{max(ious):.2f} ({max(ious) - stated:+.2f}; best of {len(ious)} seeds, median {median(ious):.2f})"
    )


def each_of(ious: list[float], stated: float) -> str:
    """The first seed's IoU, its difference from what is stated, and the IoU of other seeds.

    >>> each_of([70.33, 70.51], 70.35)
    '70.33 (-0.02; other seed: 70.51)'
    """
    first, *others = ious
    other = ", ".join(f"{iou:.2f}" for iou in others)
    seeds = f"; other seed{'s' * (len(others) > 1)}: {other}" if others else ""
    return f"{first:.2f} ({first - stated:+.2f}{seeds})"
