"""What a run left behind, before it goes on: whether it is finished, and its best weights."""

import json
import math
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from unfoldkit.common.checkpoints import read_checkpoint

from ..networks.weights import load_weights, save_weights


def last_checkpoint(out: Path) -> Path:
    return out / "checkpoints" / "last.ckpt"


def left_finished(out: Path, epochs: int, stored: dict[str, Any]) -> bool:
    """Whether `out` holds a run with its run.json and a checkpoint after so many whole epochs.

    The best weights of a run that has looked are mended first; raises what `mend_best` raises.
    """
    last = last_checkpoint(out)
    if not last.is_file():
        return False
    left = read_checkpoint(last)
    rank_zero_only(mend_best)(out, left["callbacks"]["WeightsFiles"]["best"], stored)
    done = left["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    return bool(kept_record(out)) and done >= epochs


def mend_best(out: Path, best: float, stored: dict[str, Any]) -> None:
    """Write best.safetensors, whose look found `best`, again from best.ckpt, where it is missing or damaged.

    Raises ValueError, which names it, where that is missing, damaged or of another look.
    """
    path, source = out / "best.safetensors", out / "checkpoints" / "best.ckpt"
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


def kept_record(out: Path) -> dict[str, Any]:
    """What run.json says; nothing where it is missing or damaged."""
    try:
        record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
