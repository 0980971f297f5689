"""Evaluate trained weights on a data set, by one of the published protocols.

    python tools/evaluate.py --weights runs/train/best.safetensors --dataset synthetic
    python tools/evaluate.py --weights RPCANet.pkl --dataset sirst --root DIR --protocol overlap --json sirst.json
    python tools/evaluate.py --method ipi --dataset sirst --root DIR

Prints a table; --json writes the same numbers as fractions, such as iou, f1, pd, fa (null where one is
undefined, such as pd without any target), beside the settings they were measured with, the network and the
time in seconds; tools/results_table.py makes the README's tables of such files.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unfoldkit.common.console import (
    DataSetName,
    MethodName,
    ProtocolName,
    described_parser,
    keep_memory,
    one_line_errors,
    report_skipped,
    require_device,
)

if TYPE_CHECKING:
    from torch import Tensor

    from unfoldkit.datasets import Sample

LABELS = {"iou": "IoU", "niou": "nIoU", "f1": "F1", "pd": "Pd", "fa": "Fa", "auc": "AUC", "mae": "MAE"}
UNITS = {"fa": (1e5, "1e-5"), "auc": (1, ""), "mae": (1, "")}  # all others in percent


@dataclass
class Evaluation:
    """What to evaluate, on what.

    Args:
        dataset: a published data set, folder (its layout is recognised) or synthetic (generated, needs no root).
        weights: a .safetensors file of train.py, or an officially published .pkl.
        method: a classical method in place of weights.
        root: the data set's folder.
        split: as the data set names it.
        protocol: overlap (the papers' for infrared), centroid (DNANet, BasicIRSTD), vessel or defect; by default
            the one that the data set is known by, else overlap.
        size: pictures are resized to this height and width; by default as trained (whole pictures where trained
            on crops), else 256; 0 keeps each picture's own size.
        tile: larger pictures are cut into overlapping tiles of this size, whose answers are blended.
        count: number of generated scenes (synthetic only; 80 by default).
        seed: of the generated scenes (synthetic only); by default as trained, else 42.
        batch_size: pictures evaluated at once, where they share one size.
        device: cpu, cuda, ...
        precision: of the network's features, float32 or bfloat16 (faster on GPUs and
            processors with matrix units for it, and less exact; elsewhere it is float32).
        compile: fuse elementwise steps with torch.compile, worth its start-up for many pictures.
        skip_bad: leave out pictures that cannot be used, and list them; without it the first ends the run.
        keep_empty: take pictures whose mask holds no object.
        json: file to write the numbers to.
    """

    dataset: DataSetName
    weights: str | None = None
    method: MethodName | None = None
    root: str | None = None
    split: str = "test"
    protocol: ProtocolName | None = None
    size: int | None = None
    tile: int = 1024
    count: int | None = None
    seed: int | None = None
    batch_size: int = 4
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    skip_bad: bool = False
    keep_empty: bool = False
    json: str | None = None


def settled(options: Evaluation) -> Evaluation:
    """The options with size, seed and protocol as given, else as trained or as the data set is known."""
    from unfoldkit import rpcanet
    from unfoldkit.datasets import protocol_of

    if (options.weights is None) == (options.method is None):
        raise ValueError("expected one of --weights and --method")
    training = {} if options.weights is None else rpcanet.read_training(options.weights)
    return replace(
        options,
        size=rpcanet.trained_size(training) if options.size is None else options.size,
        seed=rpcanet.trained_seed(training) if options.seed is None else options.seed,
        protocol=options.protocol or protocol_of(options.dataset),
    )


def evaluate(options: Evaluation) -> dict[str, float | None]:
    """The protocol's scalars as fractions; None where one is undefined."""
    keep_memory()
    require_device(options.device)
    options = settled(options)
    values = of_method(options) if options.weights is None else of_weights(options.weights, options)
    return {name: defined(value.item()) for name, value in values.items() if value.ndim == 0}


def network_of(weights: str | None) -> dict[str, Any] | None:
    """What a weights file holds: the network's name, stages and channels, and how it was trained."""
    from unfoldkit import rpcanet
    from unfoldkit.rpcanet.networks.weights import name_of

    if weights is None:
        return None
    net = rpcanet.load_weights(weights)
    training = {key: rpcanet.read_training(weights).get(key, {}) for key in ("data", "recipe")}
    return {"name": name_of(net), **net.architecture, "training": training if training["recipe"] else {}}


def of_weights(weights: str, options: Evaluation) -> "dict[str, Tensor]":
    import torch

    from unfoldkit import rpcanet

    net = rpcanet.load_weights(weights).to(options.device)
    fast = rpcanet.optimize(net, getattr(torch, options.precision), options.compile)
    return rpcanet.evaluate(fast, batches(options, net.mean, net.std), str(options.protocol), options.tile)


def of_method(options: Evaluation) -> "dict[str, Tensor]":
    from unfoldkit import rpcanet
    from unfoldkit.rpcanet.classical import METHODS

    method = METHODS[str(options.method)]

    def probability(image: "Tensor") -> "Tensor":
        return method(image[:, 0].to(options.device)).probability[:, None]

    return rpcanet.score(probability, batches(options), str(options.protocol))


def batches(options: Evaluation, mean: float = 0.0, std: float = 255.0) -> "Iterator[Sample]":
    """The pictures to evaluate in batches, under a progress bar; at the end, those that were left out."""
    from rich.progress import track
    from torch.utils.data import DataLoader

    from unfoldkit.datasets import SegmentationDataset, open_pictures

    size = options.size or None
    pictures = open_pictures(
        options.dataset,
        options.split,
        options.root,
        count=options.count,
        size=size or 128,
        seed=options.seed or 0,
        skip_bad=options.skip_bad,
        keep_empty=options.keep_empty,
    )
    samples = SegmentationDataset(pictures, size, mean, std)
    loader = DataLoader(samples, options.batch_size if size else 1)
    yield from track(loader, f"Evaluating {len(pictures)} pictures")
    report_skipped(getattr(pictures, "skipped", ()))


def defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def show(values: dict[str, float | None], title: str) -> None:
    """The numbers as a table, fractions in percent and the false-alarm rate in 1e-5."""
    from rich.console import Console
    from rich.table import Table

    table = Table("metric", "value", "unit")
    for name, value in values.items():
        scale, unit = UNITS.get(name, (100, "%"))
        table.add_row(LABELS.get(name, name), "undefined" if value is None else f"{scale * value:.4g}", unit)
    Console().print(f"\n{title}", table, sep="\n", highlight=False)


def write_json(path: Path, values: dict[str, float | None], seconds: float, options: Evaluation) -> None:
    from unfoldkit.common.files import write_whole

    network = network_of(options.weights)
    content = {**values, "seconds": round(seconds, 3), "network": network, "settings": asdict(options)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=2) + "\n")


def main() -> None:
    parser = described_parser("evaluate.py", __doc__)
    parser.add_class_arguments(Evaluation, skip={"skip_bad", "keep_empty"})
    parser.add_argument(
        "--skip_bad", "--skip-bad", action="store_true", help="leave out bad pictures and list them"
    )
    parser.add_argument(
        "--keep_empty", "--keep-empty", action="store_true", help="take masks without any object"
    )
    given = Evaluation(**parser.parse_args().as_dict())
    with one_line_errors("evaluate.py"):
        options = settled(given)
        start = time.perf_counter()
        values = evaluate(options)
        seconds = time.perf_counter() - start
        source = options.weights or options.method
        show(values, f"{source} on {options.dataset}/{options.split}, protocol {options.protocol}")
        if options.json is not None:
            write_json(Path(options.json), values, seconds, options)


if __name__ == "__main__":
    main()
