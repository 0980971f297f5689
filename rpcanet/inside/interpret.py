"""A look inside weights, or a classical method, over a folder of pictures: measures, figures and a report."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from unfoldkit.common.console import keep_memory, require_device
from unfoldkit.common.report import Report, fresh_writer
from unfoldkit.common.streaming import ahead

from ...datasets import read_image
from ...datasets.files import find_name, read_names
from ...datasets.inputs import evenly, inputs_in
from ...datasets.preparation import normalise
from ...datasets.reading.levels import levels_of
from ..classical import METHODS
from ..inference.fast import optimize
from ..inference.options import refuse_unread
from ..inference.preprocessing import MUCH_LARGER, Preprocessing, prepared_network
from .interpretation import SOLVER_STEPS, Interior, interior_measures, look_at_solver, look_inside
from .measures import Statistics
from .options import Interpretation
from .report import Subject, log_measures, show_measures, show_pictures, write_measures

SHOWN = 4  # pictures, where none are asked for


def interpret(options: Interpretation) -> Path:
    """Write everything that is listed at the top of this file; returns the report's path."""
    keep_memory()
    require_device(options.device)
    subject = subject_of(options)
    paths = pictures_of(options)
    shown = chosen(options.show, list(paths))
    statistics, planes = Statistics(), {}
    for names, image in batches(paths, subject, options):
        with torch.inference_mode():
            interior = subject.look(image)
            statistics.update(interior_measures(image, interior))
        for i, name in enumerate(names):
            if name in shown:
                planes[name] = planes_of(i, image, interior)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    write_measures(out, statistics, subject, asdict(options))
    with fresh_writer(out / "tensorboard") as writer:
        log_measures(writer, statistics, subject)
        report = Report(out, writer)
        show_measures(report, statistics, subject)
        show_pictures(report, planes, subject)
        subject_name = options.method or Path(str(options.weights)).name
        return report.write(f"Inside {subject_name}: {statistics.count} pictures")


def subject_of(options: Interpretation) -> Subject:
    if options.batch_size < 1:
        raise ValueError(f"--batch_size must be at least 1, got {options.batch_size}")
    if (options.weights is None) == (options.method is None):
        raise ValueError("expected one of --weights and --method")
    if options.weights is None:
        refuse_unread(options, "method", {"dataset": None, "mean": 0.0, "std": 255.0})
        method = METHODS[str(options.method)]
        labels = [*map(str, SOLVER_STEPS), "end"]
        size, largest = (256, MUCH_LARGER * 256) if options.size is None else (options.size, math.inf)
        prepared = Preprocessing(size, levels=options.levels, largest=largest)
        return Subject(
            lambda image: look_at_solver(method, image), labels, "iteration", prepared, "level / 255"
        )
    given = {"size": options.size, "mean": options.mean, "std": options.std, "levels": options.levels}
    net, prepared = prepared_network(options.weights, options.dataset, **given)
    fast = optimize(net.to(options.device))
    labels = [str(k + 1) for k in range(len(fast.stages))]
    return Subject(lambda image: look_inside(fast, image), labels, "stage", prepared, "logit")


def pictures_of(options: Interpretation) -> dict[str, Path]:
    """The pictures by name; raises where there are none, or where one that --names lists is missing."""
    found = inputs_in([options.images], options.out)
    if options.names is None:
        return found
    listed = {name: find_name(name, found) for name in read_names(Path(options.names))}
    missing = [name for name, name_found in listed.items() if name_found is None]
    if missing:
        raise ValueError(f"{options.names}: no pictures {', '.join(missing[:3])} in {options.images}")
    return {name: found[name] for name in listed.values() if name is not None}


def chosen(show: str | None, names: list[str]) -> list[str]:
    """The names that --show lists, or as many, evenly over all, as a number says that is no name."""
    if show is None:
        return evenly(names, SHOWN)
    wanted = show.split(",")
    unknown = [name for name in wanted if name not in names]
    if unknown and show.isdecimal():
        return evenly(names, int(show))
    if unknown:
        raise ValueError(f"--show: no picture {', '.join(unknown)} among the {len(names)}")
    return wanted


def batches(
    paths: dict[str, Path], subject: Subject, options: Interpretation
) -> Iterator[tuple[list[str], Tensor]]:
    """Names and pictures, read ahead, under a progress bar."""
    prepared = subject.prepared
    together = options.batch_size if prepared.size else 1
    names = list(paths)

    large = 0

    def read() -> Iterator[tuple[list[str], list[np.ndarray]]]:
        for start in range(0, len(names), together):
            part = names[start : start + together]
            yield part, [read_image(paths[name], prepared.grey, levels_of(prepared.levels)) for name in part]

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"Looking inside, {len(names)} pictures", total=len(names))
        for part, images in ahead(read()):
            large += sum(max(image.shape) > prepared.largest for image in images)
            yield part, torch.stack([as_input(image, prepared) for image in images]).to(options.device)
            progress.advance(task, len(part))
    if large:
        print(
            f"{large} pictures of over {prepared.largest:g} pixels a side were shrunk to {prepared.size}x"
            f"{prepared.size}; --size 0 keeps their own"
        )


def as_input(image: np.ndarray, prepared: Preprocessing) -> Tensor:
    """(1, height, width) of grey levels (height, width), as the networks take pictures."""
    if prepared.size:
        image = cv2.resize(image, (prepared.size, prepared.size), interpolation=cv2.INTER_LINEAR)
    return normalise(image, prepared.mean, prepared.std)


def planes_of(i: int, image: Tensor, interior: Interior) -> dict[str, np.ndarray]:
    """Picture i of a batch: image (height, width), and each quantity's planes (K, height, width)."""

    def kept(planes: Iterable[Tensor]) -> np.ndarray:
        return torch.cat([plane[i] for plane in planes]).float().cpu().numpy()

    parts = dict(
        zip(("background", "object", "restoration"), zip(*interior.stages, strict=True), strict=True)
    )
    if interior.responses:
        parts["contrast"] = interior.responses
    if interior.noises:
        parts["noise"] = interior.noises
    return {"image": kept([image])[0], **{name: kept(planes) for name, planes in parts.items()}}
