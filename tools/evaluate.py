"""Evaluate trained weights on a data set, by one of the published protocols.

    python tools/evaluate.py --weights runs/train/best.safetensors --dataset synthetic
    python tools/evaluate.py --weights RPCANet.pkl --dataset sirst --root DIR --protocol overlap --json sirst.json

Prints a table; --json writes the same numbers as fractions: iou, niou, f1, precision, recall, pd, fa, auc
(null where one is undefined, such as pd without any target), beside the settings they were measured with.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from console import described_parser, one_line_errors

SCALARS = ("iou", "niou", "f1", "precision", "recall", "pd", "fa", "auc")


@dataclass
class Evaluation:
    """What to evaluate, on what.

    Args:
        weights: a .safetensors file of train.py, or an officially published .pkl.
        dataset: sirst, folder (images and masks of equal name) or synthetic (generated, needs no root).
        root: the data set's folder.
        split: as the data set names it.
        protocol: overlap (the papers') or centroid (DNANet, BasicIRSTD).
        size: pictures are resized to this height and width; by default as trained, else 256.
        count: number of generated scenes (synthetic only; 80 by default).
        seed: of the generated scenes (synthetic only); by default as trained, else 42.
        batch_size: pictures evaluated at once.
        device: cpu, cuda, ...
        precision: of the network's features, float32 or bfloat16 (several times faster, and less exact).
        compile: fuse elementwise steps with torch.compile, worth its start-up for many pictures.
        json: file to write the numbers to.
    """

    weights: str
    dataset: Literal["sirst", "folder", "synthetic"]
    root: str | None = None
    split: str = "test"
    protocol: Literal["overlap", "centroid"] = "overlap"
    size: int | None = None
    count: int | None = None
    seed: int | None = None
    batch_size: int = 4
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    json: str | None = None


def as_trained(options: Evaluation) -> tuple[int, int]:
    """Size and seed: as given, else as the weights were trained."""
    import rpcanet

    training = rpcanet.read_training(options.weights)
    size, seed = training.get("data", {}).get("size", 256), training.get("recipe", {}).get("seed", 42)
    return options.size or size, seed if options.seed is None else options.seed


def evaluate(options: Evaluation) -> dict[str, float | None]:
    """The protocol's scalars as fractions; None where one is undefined."""
    import torch
    from rich.progress import track
    from torch.utils.data import DataLoader

    import rpcanet
    from datasets import SegmentationDataset, open_pictures

    net = rpcanet.load_weights(options.weights).to(options.device)
    fast = rpcanet.optimize(net, getattr(torch, options.precision), options.compile)
    size, seed = as_trained(options)
    pictures = open_pictures(
        options.dataset, options.split, options.root, count=options.count, size=size, seed=seed
    )
    batches = DataLoader(SegmentationDataset(pictures, size, net.mean, net.std), options.batch_size)
    values = rpcanet.evaluate(fast, track(batches, f"Evaluating {len(pictures)} pictures"), options.protocol)
    return {name: defined(values[name].item()) for name in SCALARS}


def defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def show(values: dict[str, float | None], title: str) -> None:
    """The numbers as a table, fractions in percent and the false-alarm rate in 1e-5."""
    from rich.console import Console
    from rich.table import Table

    units = dict.fromkeys(SCALARS, (100, "%")) | {"fa": (1e5, "1e-5"), "auc": (1, "")}
    labels = {"iou": "IoU", "niou": "nIoU", "f1": "F1", "pd": "Pd", "fa": "Fa", "auc": "AUC"}
    table = Table("metric", "value", "unit")
    for name, value in values.items():
        scale, unit = units[name]
        table.add_row(labels.get(name, name), "undefined" if value is None else f"{scale * value:.4g}", unit)
    Console().print(f"\n{title}", table, sep="\n", highlight=False)


def write_json(path: Path, values: dict[str, Any], options: Evaluation) -> None:
    size, seed = as_trained(options)
    settings = asdict(options) | {"size": size, "seed": seed}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**values, "settings": settings}, indent=2) + "\n")


def main() -> None:
    parser = described_parser("evaluate.py", __doc__)
    parser.add_class_arguments(Evaluation)
    options = Evaluation(**parser.parse_args().as_dict())
    with one_line_errors("evaluate.py"):
        values = evaluate(options)
        show(values, f"{options.weights} on {options.dataset}/{options.split}, protocol {options.protocol}")
        if options.json is not None:
            write_json(Path(options.json), values, options)


if __name__ == "__main__":
    main()
