"""Trained weights, or a classical method, over a whole data set, by one of the published protocols."""

import json
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from unfoldkit.common.console import keep_memory, progress, report_skipped, require_device
from unfoldkit.common.files import write_whole

from ...datasets import Sample, SegmentationDataset, open_pictures, record_of
from ...datasets.levels import levels_of
from ..classical import METHODS
from ..networks.unfolding import UnfoldedNetwork
from ..networks.weights import name_of, read_training, trained_seed
from .evaluation import evaluate, score
from .fast import optimize
from .options import Evaluation
from .preprocessing import Preprocessing, prepared_network


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
    if (options.weights is None) == (options.method is None):
        raise ValueError("expected one of --weights and --method")
    start = time.perf_counter()
    if options.weights is None:
        options, network = settled(options, method_preprocessing(options)), None
        values = of_method(options)
    else:
        net, found = prepared_network(
            options.weights,
            options.dataset,
            size=options.size,
            mean=options.mean,
            std=options.std,
            levels=options.levels,
        )
        network, options = described(net, options.weights), settled(options, found)
        values = of_network(net, found, options)
    seconds = time.perf_counter() - start
    scalars = {name: defined(value.item()) for name, value in values.items() if value.ndim == 0}
    return Evaluated(scalars, seconds, network, options)


def settled(options: Evaluation, found: Preprocessing) -> Evaluation:
    """The options with what they leave open as the weights or the data set's record have it."""
    record = record_of(options.dataset)
    training = {} if options.weights is None else read_training(options.weights)
    return replace(
        options,
        size=found.size,
        mean=found.mean,
        std=found.std,
        levels=found.levels,
        seed=trained_seed(training) if options.seed is None else options.seed,
        protocol=options.protocol or record.protocol,
        keep_empty=record.preparation.keep_empty if options.keep_empty is None else options.keep_empty,
    )


def method_preprocessing(options: Evaluation) -> Preprocessing:
    """Classical methods take level / 255, at the data set's size."""
    known = record_of(options.dataset).preparation
    size = known.size if options.size is None else options.size
    return Preprocessing(size, grey=known.grey, levels=options.levels)


def described(net: UnfoldedNetwork, weights: str | Path) -> dict[str, Any]:
    """What a weights file holds: the network's name, stages and channels, and how it was trained."""
    training = read_training(weights)
    kept = {key: training[key] for key in ("data", "recipe", "looks") if key in training}
    return {"name": name_of(net), **net.architecture, "training": kept if kept.get("recipe") else {}}


def of_network(net: UnfoldedNetwork, found: Preprocessing, options: Evaluation) -> dict[str, Tensor]:
    fast = optimize(net.to(options.device), getattr(torch, options.precision), options.compile)
    return evaluate(fast, batches(options, found), str(options.protocol), options.tile)


def of_method(options: Evaluation) -> dict[str, Tensor]:
    method = METHODS[str(options.method)]

    def probability(image: Tensor) -> Tensor:
        return method(image[:, 0].to(options.device)).probability[:, None]

    return score(probability, batches(options, method_preprocessing(options)), str(options.protocol))


def batches(options: Evaluation, found: Preprocessing) -> Iterator[Sample]:
    """The pictures to evaluate in batches, under a progress bar; at the end, those that were left out."""
    record = record_of(options.dataset).preparation
    pictures = open_pictures(
        options.dataset,
        options.split,
        options.root,
        count=options.count,
        size=found.size or 128,
        seed=options.seed or 0,
        skip_bad=options.skip_bad,
        keep_empty=bool(options.keep_empty),
        grey=found.grey,
        levels=levels_of(found.levels),
    )
    samples = SegmentationDataset(
        pictures,
        found.size or None,
        found.mean,
        found.std,
        object_level=record.object_level,
        largest=found.largest,
    )
    loader = DataLoader(samples, options.batch_size, collate_fn=of_one_shape)
    large = 0
    for group in progress(loader, f"Evaluating {len(pictures)} pictures"):
        for batch in group:
            large += len(batch.name) * (max(batch.image.shape[2:]) > found.largest)
            yield batch
    if large:
        print(f"{large} pictures of over {found.largest} pixels a side were taken at their own size")
    report_skipped(getattr(pictures, "skipped", ()))


def of_one_shape(samples: Iterable[Sample]) -> list[Sample]:
    """Batches of neighbours that share one shape."""
    groups = groupby(samples, lambda sample: sample.image.shape)
    return [default_collate(list(group)) for _, group in groups]


def defined(value: float) -> float | None:
    return None if math.isnan(value) else value
