"""Trained weights, or a classical method, over a whole data set, by one of the published protocols."""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from unfoldkit.common.console import keep_memory, naming, progress, report_skipped, require_device
from unfoldkit.common.figures import save_figure
from unfoldkit.common.files import write_result

from ...datasets import PictureFiles, Sample, SegmentationDataset, open_pictures, record_of
from ...datasets.files import taken_as_they_are
from ...datasets.reading.levels import levels_of
from ...datasets.records import padding_of
from ...datasets.regions import fields_of_view
from ..classical import METHODS
from ..metrics.rows import Row, write_csv
from ..networks.unfolding import UnfoldedNetwork
from ..networks.weights import name_of, read_training, trained_seed
from .counting import Counts
from .detections import Levels
from .evaluation import answer, probability_of
from .fast import optimize
from .options import OF_NETWORKS, Evaluation, curve_picture, refuse_unread
from .preprocessing import Preprocessing, prepared_network
from .scoring import curve_figure, score_predictions

BINS = 50  # thresholds of a curve
BATCH = 4  # pictures at once
UNREAD: dict[str, dict[str, Any]] = {  # by what is evaluated
    "weights": {"scale": None},
    "method": {"scale": None, **OF_NETWORKS},
    "predictions": OF_NETWORKS,
}
BYTES_A_PIXEL = 4096  # of a GPU's memory, that the patches of a classical method take


@dataclass
class Evaluated:
    """The numbers of one evaluation and what they were measured with.

    values: the protocol's scalars as fractions, None where one is undefined.  seconds: of the whole evaluation.
    network: what the weights file holds, None for anything else.  settings: the options as they were used.
    rows: of each picture, where asked for.  curve: over thresholds, where asked for.
    assumptions: how saved predictions, and masks that are suspect, were read, a sentence each.
    pictures: the levels of those that were not taken over the full range of their type, in order.
    """

    values: dict[str, float | None]
    seconds: float
    network: dict[str, Any] | None
    settings: Evaluation
    rows: list[Row] = field(default_factory=list)
    curve: list[Row] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    pictures: list[Levels] = field(default_factory=list)

    def write_json(self, path: str | Path) -> None:
        """The numbers and settings in one file, whole or not at all."""
        content = {
            **self.values,
            "seconds": round(self.seconds, 3),
            "network": self.network,
            **({"assumptions": self.assumptions} if self.assumptions else {}),
            **({"pictures": [seen._asdict() for seen in self.pictures]} if self.pictures else {}),
            "settings": asdict(self.settings),
        }
        write_result(path, json.dumps(content, indent=2) + "\n")

    def write_curve(self, path: str | Path) -> None:
        """The curve as CSV, and as PNG of that name beside it."""
        write_csv(path, self.curve)
        title = f"{self.settings.dataset}, protocol {self.settings.protocol}"
        save_figure(curve_figure(self.curve, title), curve_picture(path))


def evaluate_data_set(options: Evaluation) -> Evaluated:
    """What a protocol counts over a split of a data set for weights, a classical method or saved predictions.

    Raises ValueError and FileNotFoundError for options, weights or data that cannot be used.

    >>> evaluated = evaluate_data_set(Evaluation("synthetic", method="pcp", count=2, size=32))
    >>> evaluated.values["iou"] > 0, evaluated.settings.protocol
    (True, 'overlap')
    """
    keep_memory()
    require_device(options.device)
    sources = [source for source in UNREAD if getattr(options, source) is not None]
    if len(sources) != 1:
        raise ValueError("expected one of --weights, --method and --predictions")
    refuse_unread(options, sources[0], UNREAD[sources[0]])
    start = time.perf_counter()
    evaluated = (
        of_weights(options.weights, options)
        if options.weights is not None
        else of_method(options)
        if options.method is not None
        else of_predictions(str(options.predictions), options)
    )
    evaluated.seconds = time.perf_counter() - start
    return evaluated


def of_weights(weights: str, options: Evaluation) -> Evaluated:
    given = {"size": options.size, "mean": options.mean, "std": options.std, "levels": options.levels}
    net, found = prepared_network(weights, options.dataset, **given)
    network, options = described(net, weights), settled(options, found)
    fast = optimize(net.to(options.device), getattr(torch, options.precision), options.compile)
    padding = padding_of(str(options.protocol))

    def probability(image: Tensor) -> Tensor:
        return probability_of(answer(fast, image.to(options.device), padding, options.tile))

    return counted(probability, found, options, network)


def of_method(options: Evaluation) -> Evaluated:
    """Classical methods take level / 255, at the data set's size."""
    found, method = data_set_preprocessing(options), METHODS[str(options.method)]

    def probability(image: Tensor) -> Tensor:
        return method(image[:, 0].to(options.device)).probability[:, None]

    return counted(probability, found, settled(options, found), None)


def of_predictions(folder: str, options: Evaluation) -> Evaluated:
    """Saved maps have the size of their masks: at the data set's size, or the pictures' own."""
    found = data_set_preprocessing(options)
    options = settled(options, found)
    samples = opened(options, found)
    scores = score_predictions(
        folder,
        samples,
        str(options.protocol),
        options.threshold,
        options.scale,
        regions_of(options, samples),
        BINS if options.curve is not None else 0,
    )
    values = {name: defined(value) for name, value in scores.values.items()}
    assumptions = [*scores.assumptions, *masks_assumed(samples)]
    return Evaluated(values, 0.0, None, options, scores.rows, scores.curve, assumptions)


@torch.inference_mode()
def counted(
    probability: Callable[[Tensor], Tensor],
    found: Preprocessing,
    options: Evaluation,
    network: dict[str, Any] | None,
) -> Evaluated:
    """What the protocol counts for a map from images to probabilities over the settled data set."""
    samples = opened(options, found)
    counts = Counts(
        str(options.protocol),
        options.threshold,
        regions_of(options, samples),
        each=options.csv is not None,
        bins=BINS if options.curve is not None else 0,
    )
    # Without TF32, whose 10 bits move the published rows by hundredths on a GPU.
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        for batch in batches(samples, options.batch_size):
            with naming(", ".join(batch.name)):
                counts.update(batch.name, probability(batch.image).cpu(), batch.mask)
    values = {name: defined(value) for name, value in counts.values().items()}
    return Evaluated(
        values,
        0.0,
        network,
        options,
        counts.rows,
        counts.curve,
        masks_assumed(samples),
        levels_chosen(samples),
    )


def masks_assumed(samples: SegmentationDataset) -> list[str]:
    """What masks that can hardly be meant as they are were taken for."""
    return taken_as_they_are(samples.pictures) if isinstance(samples.pictures, PictureFiles) else []


def levels_chosen(samples: SegmentationDataset) -> list[Levels]:
    """The levels of the pictures that were not taken over the full range of their type, in order."""
    chosen = getattr(samples.pictures, "chosen", {})
    return [Levels(name, how, low, high) for name, (low, high, how) in chosen.items()]


def data_set_preprocessing(options: Evaluation) -> Preprocessing:
    known = record_of(options.dataset).preparation
    size = known.size if options.size is None else options.size
    return Preprocessing(size, grey=known.grey, levels=options.levels)


def settled(options: Evaluation, found: Preprocessing) -> Evaluation:
    """The options with what they leave open as the weights or the data set's record have it.

    Raises ValueError where one is given that is read of generated scenes alone.
    """
    record = record_of(options.dataset)
    seed = trained_seed({} if options.weights is None else read_training(options.weights))
    if options.dataset != "synthetic":
        refuse_unread(options, f"dataset {options.dataset}", {"count": None, "seed": seed})
    return replace(
        options,
        size=found.size,
        mean=found.mean,
        std=found.std,
        levels=found.levels,
        seed=seed if options.seed is None else options.seed,
        protocol=options.protocol or record.protocol,
        keep_empty=record.preparation.keep_empty if options.keep_empty is None else options.keep_empty,
        batch_size=together(options, found.size) if options.batch_size is None else options.batch_size,
    )


def together(options: Evaluation, size: int) -> int:
    """Pictures at once: few, but of a classical method on a GPU, which small ones leave idle, as many as fit."""
    if options.method is None or size == 0 or not options.device.startswith("cuda"):
        return BATCH
    free, _ = torch.cuda.mem_get_info(options.device)
    return max(1, free // (BYTES_A_PIXEL * size**2))


def described(net: UnfoldedNetwork, weights: str | Path) -> dict[str, Any]:
    """What a weights file holds: the network's name, stages and channels, and how it was trained."""
    training = read_training(weights)
    kept = {key: training[key] for key in ("data", "recipe", "looks", "seconds", "device") if key in training}
    return {"name": name_of(net), **net.architecture, "training": kept if kept.get("recipe") else {}}


def opened(options: Evaluation, found: Preprocessing) -> SegmentationDataset:
    """The pictures to evaluate."""
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
    return SegmentationDataset(
        pictures,
        found.size or None,
        found.mean,
        found.std,
        object_level=record_of(options.dataset).preparation.object_level,
        largest=found.largest,
    )


def regions_of(options: Evaluation, samples: SegmentationDataset) -> dict[str, np.ndarray] | None:
    """The field of view of each picture, where only that is counted."""
    if not options.field_of_view:
        return None
    if options.protocol != "vessel" or not isinstance(samples.pictures, PictureFiles):
        raise ValueError("--field_of_view counts pictures of vessels, by the protocol vessel")
    return fields_of_view(samples.pictures.pairs)


def batches(samples: SegmentationDataset, batch_size: int | None) -> Iterator[Sample]:
    """The pictures in batches of one shape, under a progress bar; at the end, those that were left out."""
    loader, large = DataLoader(samples, batch_size, collate_fn=of_one_shape), 0
    for group in progress(loader, f"Evaluating {len(samples)} pictures"):
        for batch in group:
            large += len(batch.name) * (max(batch.image.shape[2:]) > samples.largest)
            yield batch
    if large:
        print(
            f"{large} pictures of over {samples.largest} pixels a side were taken at their own size, in tiles"
        )
    report_skipped(getattr(samples.pictures, "skipped", ()))


def of_one_shape(samples: Iterable[Sample]) -> list[Sample]:
    """Batches of neighbours that share one shape."""
    groups = groupby(samples, lambda sample: sample.image.shape)
    return [default_collate(list(group)) for _, group in groups]


def defined(value: float) -> float | None:
    return None if math.isnan(value) else value
