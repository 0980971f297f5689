"""How weights join those of the package, and what is told of each."""

import shlex
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from ...datasets import record_of
from ..inference.data_set import Evaluated, evaluate_data_set
from ..inference.options import Evaluation
from ..names import LABELS, UNITS
from ..networks.weights import load_weights, read_training, save_weights
from .pretrained import FOLDER, PREFIX, Card, card, pretrained_names

UNCHANGED = 5e-4  # of IoU


def add(weights: str, name: str, evaluation: Evaluation, licence: str, training: str, limits: str) -> Path:
    """Put `weights` among those of the package as zoo:`name`, with what `evaluation` measures of them.

    They are kept in float16 where that changes IoU by less than 0.05 points; of their training record, where the
    pictures lay is left out. Returns the file.
    Raises ValueError where one of the texts is missing, and what `evaluate_data_set` and `load_weights` raise.
    """
    missing = [
        key for key, text in {"licence": licence, "training": training, "limits": limits}.items() if not text
    ]
    if missing:
        raise ValueError(f"a card needs --{', --'.join(missing)}")
    record = read_training(weights)
    if "data" in record:
        record["data"]["root"] = "DIR"
    with TemporaryDirectory() as folder:
        half = str(Path(folder) / "half.safetensors")
        save_weights(load_weights(weights), half, record, half=True)
        exact, rounded = (evaluate_data_set(replace(evaluation, weights=path)) for path in (weights, half))
    kept = abs((exact.values["iou"] or 0) - (rounded.values["iou"] or 0)) < UNCHANGED
    told = _card(rounded if kept else exact, name, licence, training, limits)
    path = FOLDER / f"{name}.safetensors"
    save_weights(load_weights(weights), path, record, half=kept, card=told)
    return path


def _card(evaluated: Evaluated, name: str, licence: str, training: str, limits: str) -> Card:
    used = evaluated.settings
    command = ["python", "tools/evaluate.py", "--weights", f"{PREFIX}{name}", "--dataset", used.dataset]
    command += ["--root", "DIR"] if used.root else []
    measured = {key: float(f"{value:.6g}") for key, value in evaluated.values.items() if value is not None}
    return Card(used.dataset, licence, training, shlex.join(command), used.device, measured, limits)


def listed() -> str:
    """The weights of the package as a Markdown table."""
    rows = ["| weights | data set | measured on its test pictures | MiB |", "|---|---|---|---|"]
    for name in pretrained_names():
        told = card(name)
        size = (FOLDER / f"{name}.safetensors").stat().st_size / 2**20
        rows.append(
            f"| `{PREFIX}{name}` | {record_of(told.data_set).title} | {_numbers(told)} | {size:.1f} |"
        )
    return "\n".join(rows)


def cards() -> str:
    """Every card as Markdown, below the table of them all."""
    return "\n\n".join([listed(), *(_described(name, card(name)) for name in pretrained_names())])


def _described(name: str, told: Card) -> str:
    record = record_of(told.data_set)
    return f"""## {PREFIX}{name}

- Data: {record.title} ({record.source}); licence of the pictures: {told.licence}.
- Trained by `{told.training}`.
- Measured: {_numbers(told)}, by `{told.evaluation}` on {told.device}.
- Limits: {told.limits}"""


def _numbers(told: Card) -> str:
    def number(key: str) -> str:
        scale, unit = UNITS.get(key, (100, "%"))
        return f"{LABELS.get(key, key)} {scale * told.measured[key]:.2f} {unit}".strip()

    return ", ".join(number(key) for key in told.measured)
