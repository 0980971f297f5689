"""What a run left behind, before it goes on: whether it is finished, and its best weights."""

import json
import math
from pathlib import Path
from typing import Any

from unfoldkit.common.checkpoints import read_checkpoint

from ..networks.weights import load_weights, save_weights


def last_checkpoint(out: Path) -> Path:
    return out / "checkpoints" / "last.ckpt"


def mend_best(out: Path, stored: dict[str, Any]) -> None:
    """Write best.safetensors of a run that has looked again from best.ckpt, where it is missing or damaged.

    Raises ValueError, which names it, where that is missing, damaged or of another look.
    """
    path, source = out / "best.safetensors", out / "checkpoints" / "best.ckpt"
    best = read_checkpoint(last_checkpoint(out))["callbacks"]["WeightsFiles"]["best"]
    if best == -math.inf or readable(path):
        return
    if not readable(source) or not of_best_look(source, best):
        raise ValueError(f"{path}: missing or damaged, and {source} does not hold these weights either")
    record = {**stored, **kept_record(out)}
    record.pop("curve", None)
    save_weights(load_weights(source), path, record)
    print(f"{path}: missing or damaged, written again from {source}")


def of_best_look(checkpoint: Path, best: float) -> bool:
    """Whether its last look was its first as good, and at least `best`; those within epochs are not kept there."""
    *before, found = read_checkpoint(checkpoint)["callbacks"]["Selection"]["values"]
    return bool(found >= best and all(value < found for value in before))


def readable(path: Path) -> bool:
    """Whether there are the weights of a network in the file."""
    try:
        load_weights(path)
    except (FileNotFoundError, ValueError):
        return False
    return True


def finished(out: Path, epochs: int) -> bool:
    """Whether the run in `out` has its run.json, and a checkpoint after so many whole epochs."""
    progress = read_checkpoint(last_checkpoint(out))["loops"]["fit_loop"]["epoch_progress"]
    return bool(kept_record(out)) and progress["current"]["processed"] >= epochs


def kept_record(out: Path) -> dict[str, Any]:
    """What run.json says; nothing where it is missing or damaged."""
    try:
        record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
