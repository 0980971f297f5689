"""Weights, or a classical method, on pictures and videos: from files to masks, probabilities and lists."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from unfoldkit.common.console import keep_memory, naming, progress, report_skipped, require_device
from unfoldkit.common.files import write_whole
from unfoldkit.common.streaming import ahead, behind

from ...datasets.inputs import inputs_in, require_names_of_pages
from ...datasets.reading.levels import Graded, levels_of
from ...datasets.reading.picture import read_pages
from ...datasets.reading.video import is_video
from ..classical import METHODS
from ..inside.panels import panel
from ..networks.unfolding import Decomposition
from .detections import Detection, Levels, detections_in, write_detections
from .evaluation import decompose, probability_of
from .fast import optimize
from .options import OF_NETWORKS, Prediction, refuse_unread
from .preprocessing import Preprocessing, prepared_network
from .video_prediction import predict_video

Decomposer = Callable[[Tensor], Decomposition]
Write = Callable[..., None]


class Page(NamedTuple):
    """One picture to look at: its name, as its results are called, and its grey levels; none yet of a video."""

    name: str
    path: Path
    graded: Graded | None


def predict(options: Prediction) -> list[Path]:
    """Write the results of every input; returns the files written.

    Raises ValueError and FileNotFoundError for options, weights and inputs that cannot be used.

    >>> import cv2, tempfile
    >>> from unfoldkit.datasets import SyntheticScenes
    >>> folder = Path(tempfile.mkdtemp())
    >>> scene = folder / "scene.png"
    >>> written = cv2.imwrite(str(scene), SyntheticScenes("test", 1, size=32)[0].image)
    >>> [path.name for path in predict(Prediction([str(scene)], method="pcp", out=str(folder / "out")))]
    ['scene_mask.png', 'scene_probability.png']
    """
    if not 0 <= options.threshold <= 1:
        raise ValueError(f"--threshold must be from 0 to 1, got {options.threshold}")
    if options.block < 1:
        raise ValueError(f"--block must be at least 1, got {options.block}")
    keep_memory()
    require_device(options.device)
    inputs = inputs_in(options.inputs, options.out)
    require_names_of_pages(inputs)
    found, decomposer = prepared(options)
    written: list[Path] = []
    skipped: list[str] = []
    detections: list[Detection] = []
    pictures: list[Levels] = []
    large, faults = 0, skipped if options.skip_bad else None
    Path(options.out).mkdir(parents=True, exist_ok=True)
    with behind() as write:
        for page in progress(ahead(read_all(inputs, found, faults)), "Predicting", len(inputs)):
            with skipping(faults), naming(page.path):
                if page.graded is None:
                    result = predict_video(page.path, page.name, decomposer, options)
                    written, pictures = written + result.written, pictures + result.frames
                    detections += result.detections
                    continue
                levels = torch.from_numpy(page.graded.image)
                answer = decomposer(levels)
                large += max(levels.shape) > found.largest
                probability = probability_of(answer)[0, 0].float().cpu().numpy()
                written += write_results(page, levels, answer, probability, options, write)
                if options.detections:
                    pictures.append(Levels(page.name, *page.graded[3:], *page.graded[1:3]))
                    detections += detections_in(probability, pictures[-1], options.threshold)
    report_skipped(skipped)
    if large:
        print(
            f"{large} pictures of over {found.largest} pixels a side were taken at their own size, in tiles"
        )
    if options.detections:
        written += write_detections(Path(options.out), detections, pictures, options.threshold)
    return written


def prepared(options: Prediction) -> tuple[Preprocessing, Decomposer]:
    """How pictures are read, and what takes their grey levels (height, width) apart."""
    levels_of(options.levels)  # refuses other words before anything is read
    if (options.weights is None) == (options.method is None):
        raise ValueError("expected one of --weights and --method")
    if options.weights is None:
        refuse_unread(options, "method", {"dataset": None, "size": 0, **OF_NETWORKS})
        return Preprocessing(size=0, levels=options.levels), by_method(str(options.method), options.device)
    net, found = prepared_network(
        options.weights,
        options.dataset,
        size=options.size,
        mean=options.mean,
        std=options.std,
        levels=options.levels,
    )
    fast = optimize(net.to(options.device), getattr(torch, options.precision), options.compile)

    def by_network(levels: Tensor) -> Decomposition:
        size = None if max(levels.shape) > found.largest else found.size or None
        return decompose(fast, levels, size, options.tile, found.padding)

    return found, by_network


def by_method(name: str, device: str) -> Decomposer:
    method = METHODS[name]

    def decomposer(levels: Tensor) -> Decomposition:
        image = levels.float().to(device)[None, None]
        found = method(image / 255)
        background, logits = 255 * found.background, found.probability.logit(eps=1e-6)
        return Decomposition(background, logits, background + 255 * found.object)

    return decomposer


def read_all(inputs: dict[str, Path], found: Preprocessing, faults: list[str] | None) -> Iterator[Page]:
    """Every picture, each page of a TIFF file and frame of an animation, and the videos unread."""
    for name, path in inputs.items():
        if is_video(path):
            yield Page(name, path, None)
            continue
        with skipping(faults):
            folder = Path(name).parent
            for page, graded in read_pages(path, found.grey, levels_of(found.levels)):
                yield Page((folder / page).as_posix(), path, graded)


@contextmanager
def skipping(faults: list[str] | None) -> Iterator[None]:
    """Note what is wrong with an input in `faults`; without that list, raise it."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        if faults is None:
            raise
        faults.append(str(error))


def write_results(
    page: Page,
    levels: Tensor,
    answer: Decomposition,
    probability: np.ndarray,
    options: Prediction,
    write: Write,
) -> list[Path]:
    """Have the pictures of one answer written; returns where they will be."""
    written = []
    for kind, result in results(levels, answer, probability, options):
        path = Path(options.out) / f"{page.name}_{kind}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(write_picture, path, result)
        written.append(path)
    return written


def results(
    levels: Tensor, answer: Decomposition, probability: np.ndarray, options: Prediction
) -> Iterator[tuple[str, np.ndarray]]:
    """The pictures to write, by the ending of their names: 8-bit arrays, colour in OpenCV's order."""
    yield "mask", np.where(probability > options.threshold, 255, 0).astype(np.uint8)
    yield "probability", (255 * probability).round().astype(np.uint8)
    if options.panels:
        image = levels[None, None].float().to(answer.object.device)
        pixels = panel(image, answer).permute(1, 2, 0).cpu().numpy()[..., ::-1]
        yield "panel", (255 * pixels).round().astype(np.uint8)


def write_picture(path: Path, picture: np.ndarray) -> None:
    written, content = cv2.imencode(".png", picture)
    if not written:
        raise ValueError(f"{path}: the picture of shape {picture.shape} could not be encoded")
    write_whole(path, content.tobytes())
