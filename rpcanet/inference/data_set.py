"""Trained weights, or a classical method, over a whole data set, by one of the published protocols."""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from unfoldkit.common.console import keep_memory, report_skipped, require_device
from unfoldkit.common.files import write_whole

from ...datasets import Sample, SegmentationDataset, open_pictures, protocol_of
from ..classical import METHODS
from ..networks.weights import load_weights, name_of, read_training, trained_seed, trained_size
from .evaluation import evaluate, score
from .fast import optimize
from .options import Evaluation


@dataclass
class Evaluated:
    """The numbers of one evaluation and what they were measured with.

    values: the protocol's scalars as fractions, None where one is undefined.  seconds: of the whole evaluation.
    network: what the weights file holds, None for a classical method.  settings: the options as they were used.
    """

    values: dict[str, float | None]
    seconds: float
    network: dict[str, Any] | None
    settings: Evaluation

    def write_json(self, path: str | Path) -> None:
        """All of it in one file, whole or not at all."""
        content = {
            **self.values,
            "seconds": round(self.seconds, 3),
            "network": self.network,
            "settings": asdict(self.settings),
        }
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(content, indent=2) + "\n")


def evaluate_data_set(options: Evaluation) -> Evaluated:
    """What a protocol counts for weights or a classical method over a split of a data set.

    Raises ValueError and FileNotFoundError for options, weights or data that cannot be used.

    >>> evaluated = evaluate_data_set(Evaluation("synthetic", method="pcp", count=2, size=32))
    >>> evaluated.values["iou"] > 0, evaluated.settings.protocol
    (True, 'overlap')
    """
    keep_memory()
    require_device(options.device)
    options = settled(options)
    start = time.perf_counter()
    values = of_method(options) if options.weights is None else of_weights(options.weights, options)
    seconds = time.perf_counter() - start
    scalars = {name: defined(value.item()) for name, value in values.items() if value.ndim == 0}
    return Evaluated(scalars, seconds, network_of(options.weights), options)


def settled(options: Evaluation) -> Evaluation:
    """The options with size, seed and protocol as given, else as trained or as the data set is known."""
    if (options.weights is None) == (options.method is None):
        raise ValueError("expected one of --weights and --method")
    training = {} if options.weights is None else read_training(options.weights)
    return replace(
        options,
        size=trained_size(training) if options.size is None else options.size,
        seed=trained_seed(training) if options.seed is None else options.seed,
        protocol=options.protocol or protocol_of(options.dataset),
    )


def network_of(weights: str | None) -> dict[str, Any] | None:
    """What a weights file holds: the network's name, stages and channels, and how it was trained."""
    if weights is None:
        return None
    net = load_weights(weights)
    training = {key: read_training(weights).get(key, {}) for key in ("data", "recipe")}
    return {"name": name_of(net), **net.architecture, "training": training if training["recipe"] else {}}


def of_weights(weights: str, options: Evaluation) -> dict[str, Tensor]:
    net = load_weights(weights).to(options.device)
    fast = optimize(net, getattr(torch, options.precision), options.compile)
    return evaluate(fast, batches(options, net.mean, net.std), str(options.protocol), options.tile)


def of_method(options: Evaluation) -> dict[str, Tensor]:
    method = METHODS[str(options.method)]

    def probability(image: Tensor) -> Tensor:
        return method(image[:, 0].to(options.device)).probability[:, None]

    return score(probability, batches(options), str(options.protocol))


def batches(options: Evaluation, mean: float = 0.0, std: float = 255.0) -> Iterator[Sample]:
    """The pictures to evaluate in batches, under a progress bar; at the end, those that were left out."""
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
