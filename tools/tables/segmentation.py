"""The tables of results: what was measured here beside what the papers state, a table for each data set."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfoldkit.rpcanet.inference.options import Evaluation
from unfoldkit.rpcanet.names import LABELS, UNITS
from unfoldkit.rpcanet.training.configuration import Recipe

from . import channels, compression, records, speed, trainings
from .markdown import Marks, Row, markdown, marks_of, read

if TYPE_CHECKING:
    from unfoldkit.datasets import DataSet

CONFIGS = Path(__file__).parents[1] / "configs"
MARKS = marks_of("results")
WEIGHTS = marks_of("weights")
COLUMNS = {
    "overlap": ("iou", "niou", "f1", "pd", "fa", "auc"),
    "vessel": ("accuracy", "sensitivity", "precision", "auc", "f1", "iou"),
    "defect": ("smeasure", "mae", "iou", "f1"),
}
HEADINGS = LABELS | {"fa": "Fa (1e-5)", "smeasure": "S-measure"}
NOT_RUN = "Not run here"
PUBLISHED_STAGES, PUBLISHED_CHANNELS = (3, 6, 9), 32

Result = dict[str, Any]


def tables(results: list[Result], published: dict[str, Any]) -> str:
    """Where the published numbers come from, then a heading and a table for every published data set."""
    from unfoldkit.datasets import PUBLISHED

    return "\n\n".join(
        [
            sources(published),
            *(
                table(name, data, [x for x in results if x["settings"]["dataset"] == name], published[name])
                for name, data in PUBLISHED.items()
            ),
        ]
    )


def sources(published: dict[str, Any]) -> str:
    """Where the rows "as published" come from, and how their epochs were chosen."""
    lines = [f"- {text}." for text in (*published["sources"].values(), *published["notes"].values())]
    return "\n".join(["Rows *as published*:\n", *lines])


def table(name: str, data: "DataSet", here: list[Result], published: dict[str, dict[str, Any]]) -> str:
    """A data set's heading, its numbers, in a table where there is a result, and a line on what was not run."""
    title = f"#### {data.title}\n\n{data.counts['test']} test pictures, protocol `{data.protocol}`."
    body = compared(here, published, COLUMNS[data.protocol]) if here else in_a_line(published)
    return "\n\n".join(part for part in (title, body, not_run(name, here)) if part)


def compared(here: list[Result], published: dict[str, dict[str, Any]], columns: tuple[str, ...]) -> str:
    """What was measured here, above what the papers state."""
    header = ["", "M parameters", "size", *(HEADINGS.get(c, c) for c in columns), "s", "command"]
    return markdown(header, [*measured(here, columns), *stated(published, columns)])


def in_a_line(published: dict[str, dict[str, Any]]) -> str:
    """What the papers state of a data set without a result, which makes no table."""
    rows = (f"{name} {values['iou']:g}" for name, values in published.items() if values)
    return f"IoU as published: {', '.join(rows)}."


def measured(results: list[Result], columns: tuple[str, ...]) -> list[Row]:
    """One row for each result, the largest pictures first, then by the first column of IoU."""
    from unfoldkit.rpcanet import trained_size

    ordered = sorted(results, key=lambda x: (-x["settings"]["size"], x["iou"]))
    return [
        [
            described(x),
            parameters(x["network"]),
            str(x["settings"]["size"] or "own"),
            *(shown(c, x.get(c)) for c in columns),
            f"{x['seconds']:.0f}",
            f"`{command(x['settings'], trained_size((x['network'] or {}).get('training') or {}))}`",
        ]
        for x in ordered
    ]


def stated(published: dict[str, dict[str, Any]], columns: tuple[str, ...]) -> list[Row]:
    """What the papers state, in the units of the table."""
    return [
        [
            f"{name}, as published",
            f"{values['parameters']:.3f}",
            "",
            *("" if c not in values else f"{values[c]:g}" for c in columns),
            "",
            "",
        ]
        for name, values in published.items()
        if values
    ]


def not_run(name: str, here: list[Result]) -> str:
    """One line on the classical methods and published networks without a result, and the commands they take."""
    from unfoldkit.rpcanet.classical import METHODS

    measured_methods = {x["settings"]["method"] for x in here}
    methods = [method for method in METHODS if method not in measured_methods]
    trained = {x["network"]["stages"] for x in here if x["network"] and as_published(x["network"], name)}
    stages = [count for count in PUBLISHED_STAGES if count not in trained]
    parts = []
    if methods:
        how = f"tools/evaluate.py --method NAME --dataset {name} --root DIR"
        parts.append(f"{', '.join(map(str.upper, methods))} (`{how}`)")
    if stages:
        how = f"tools/train.py --config tools/configs/{name}.yaml --network.stages K --data.root DIR"
        parts.append(f"RPCANet++ {', '.join(f'S{count}' for count in stages)} by the whole recipe (`{how}`)")
    return f"{NOT_RUN}: {'; '.join(parts)}." if parts else ""


def as_published(network: dict[str, Any], name: str) -> bool:
    """Whether a network was trained here as the authors train on its data set."""
    from unfoldkit.datasets import record_of

    record, training = record_of(name), network["training"]
    return bool(training) and (
        network["name"] == "rpcanet++"
        and not training["data"].get("held_out")
        and network["channels"] == PUBLISHED_CHANNELS
        and training["data"]["size"] == (record.recipe.crop or record.preparation.size)
        and training["recipe"]["epochs"] == record.recipe.epochs
    )


def parameters(network: dict[str, Any] | None) -> str:
    """Millions of parameters of a network as it stands in a result; nothing for a classical method."""
    from unfoldkit.rpcanet import build

    if network is None:
        return ""
    sizes = {key: value for key, value in network.items() if key not in ("name", "training")}
    return f"{sum(p.numel() for p in build(network['name'], **sizes).parameters()) / 1e6:.3f}"


def described(result: Result) -> str:
    """What a row is about: a method, or a network with how it was trained."""
    network = result["network"]
    if network is None:
        return str(result["settings"]["method"]).upper()
    title = f"{network['name'].replace('rpcanet', 'RPCANet')} of {network['stages']} stages"
    if not network["training"]:
        return f"{title}, published weights"
    training = network["training"]
    seed = training["recipe"].get("seed", Recipe.seed)
    other = "" if seed == Recipe.seed else f", seed {seed}"
    return f"{title} and {network['channels']} channels, {training['recipe']['epochs']} epochs{other}"


def command(settings: dict[str, Any], trained_size: int) -> str:
    """The command that gives a row: every setting that is not the default, the data's folder as DIR."""
    parts = []
    weights = settings["weights"]
    if weights and (CONFIGS / f"{Path(weights).parent.name}.yaml").is_file():
        run = Path(weights).parent
        parts.append(f"tools/train.py --config tools/configs/{run.name}.yaml --data.root DIR --out {run};")
    parts.append("tools/evaluate.py")
    default = {option.name: option.default for option in fields(Evaluation)} | {"size": trained_size}
    for name in ("weights", "method", "dataset", "root", "split", "size"):
        value = {"root": "DIR", "weights": shortened(settings["weights"])}.get(name, settings[name])
        if settings[name] != default[name]:
            parts.append(f"--{name} {value}")
    return " ".join(parts)


def shortened(weights: str | None) -> str:
    """A weights file as a reader may have it: in a run's folder, or alone."""
    path = Path(weights or "")
    return str(path) if path.parts[:1] == ("runs",) else path.name


def shown(name: str, value: float | None) -> str:
    scale, _ = UNITS.get(name, (100, "%"))
    digits = {"mae": 4, "auc": 4}.get(name, 2)
    return "undefined" if value is None else f"{scale * value:.{digits}f}"


def collected(folder: Path) -> str:
    """The tables of all results in `folder`."""
    results = [read(path) for path in sorted(folder.glob("*.json"))]
    results += trainings.results(folder)
    published = read(folder / "published.json")
    return tables([x for x in results if "dataset" in x.get("settings", {})], published)


def everything(folder: Path) -> dict[Marks, str]:
    """All that `tools/results_table.py` writes, by the marks between which it stands."""
    from unfoldkit.rpcanet.zoo.cards import cards

    speeds = {marks_of(subject): speed.tables(subject, folder) for subject in speed.SUBJECTS}
    others = channels.tables(folder) | records.tables(folder) | records.highlights(folder)
    others |= trainings.tables(folder) | compression.tables(folder)
    return {MARKS: collected(folder), WEIGHTS: cards()} | speeds | others
