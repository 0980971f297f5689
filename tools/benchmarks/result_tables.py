"""The tables of results: what was measured here beside what the papers state, a table for each data set."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from unfoldkit.rpcanet.inference.options import Evaluation
from unfoldkit.rpcanet.names import LABELS, UNITS

from .tables import Row, line

CONFIGS = Path(__file__).parents[1] / "configs"
MARKS = "<!-- results: tools/results_table.py -->", "<!-- end of results -->"
COLUMNS = {
    "overlap": ("iou", "niou", "f1", "pd", "fa", "auc"),
    "vessel": ("accuracy", "sensitivity", "precision", "auc", "f1", "iou"),
    "defect": ("smeasure", "mae", "iou", "f1"),
}
HEADINGS = LABELS | {"fa": "Fa (1e-5)", "smeasure": "S-measure"}
NOT_RUN = "not run"

Result = dict[str, Any]


def tables(results: list[Result], published: dict[str, Any]) -> str:
    """A heading and a table for every published data set."""
    from unfoldkit.datasets import PUBLISHED

    parts = []
    for name, data in PUBLISHED.items():
        columns = COLUMNS[data.protocol]
        here = [x for x in results if x["settings"]["dataset"] == name]
        title = f"**{data.title}**, {data.counts['test']} test pictures, protocol `{data.protocol}`"
        header = ["", "size", *(HEADINGS.get(c, c) for c in columns), "s", "command"]
        rows = [*measured(here, columns), *stated(published[name], columns), *not_run(name, here, columns)]
        parts.append("\n".join([f"{title}\n", line(header), line(["---"] * len(header)), *map(line, rows)]))
    return "\n\n".join(parts)


def measured(results: list[Result], columns: tuple[str, ...]) -> list[Row]:
    """One row for each result, the largest pictures first, then by the first column of IoU."""
    from unfoldkit.rpcanet import trained_size

    ordered = sorted(results, key=lambda x: (-x["settings"]["size"], x["iou"]))
    return [
        [
            described(x),
            str(x["settings"]["size"] or "own"),
            *(shown(c, x.get(c)) for c in columns),
            f"{x['seconds']:.0f}",
            f"`{command(x['settings'], trained_size((x['network'] or {}).get('training') or {}))}`",
        ]
        for x in ordered
    ]


def stated(published: dict[str, dict[str, float]], columns: tuple[str, ...]) -> list[Row]:
    """What the papers state, in the units of the table."""
    return [
        [
            f"{name}, as published",
            "",
            *("" if c not in values else f"{values[c]:g}" for c in columns),
            "",
            "",
        ]
        for name, values in published.items()
        if values
    ]


def not_run(name: str, here: list[Result], columns: tuple[str, ...]) -> list[Row]:
    """A row for each classical method and published network without a result."""
    from unfoldkit.rpcanet.classical import METHODS

    blank = [""] * len(columns)
    rows = []
    for method in METHODS:
        if not any(x["settings"]["method"] == method for x in here):
            how = f"tools/evaluate.py --method {method} --dataset {name} --root DIR"
            rows.append([method.upper(), "", *blank, "", f"{NOT_RUN}: `{how}`"])
    trained = {x["network"]["stages"] for x in here if x["network"] and as_published(x["network"], name)}
    for stages in (3, 6, 9):
        if stages not in trained:
            how = (
                f"tools/train.py --config tools/configs/{name}.yaml --network.stages {stages} --data.root DIR"
            )
            rows.append([f"RPCANet++ S{stages}, trained here", "", *blank, "", f"{NOT_RUN}: `{how}`"])
    return rows


def as_published(network: dict[str, Any], name: str) -> bool:
    """Whether a network was trained here by the recipe of its data set."""
    import yaml

    recipe = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    training = network["training"]
    return bool(training) and (
        network["name"] == "rpcanet++"
        and network["channels"] == recipe["network"]["channels"]
        and training["data"]["size"] == recipe["data"]["size"]
        and training["recipe"]["epochs"] == recipe["recipe"]["epochs"]
    )


def described(result: Result) -> str:
    """What a row is about: a method, or a network with how it was trained."""
    network = result["network"]
    if network is None:
        return str(result["settings"]["method"]).upper()
    title = f"{network['name'].replace('rpcanet', 'RPCANet')} of {network['stages']} stages"
    if not network["training"]:
        return f"{title}, published weights"
    recipe = network["training"]["recipe"]
    return f"{title} and {network['channels']} channels, {recipe['epochs']} epochs"


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
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    published = json.loads((folder / "published.json").read_text(encoding="utf-8"))
    return tables([x for x in results if "dataset" in x.get("settings", {})], published)
