"""Weights, or a classical method, on pictures and videos: from files to masks, probabilities and panels."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from unfoldkit.common.console import keep_memory, progress, report_skipped, require_device
from unfoldkit.common.files import write_whole
from unfoldkit.common.streaming import AT_ONCE, ahead, behind

from ...datasets import read_image
from ...datasets.files import outside, pictures_by_stem
from ...datasets.picture import stem
from ...datasets.video import frame_rate, is_video, read_video, video_file
from ..classical import METHODS, VIDEO_METHODS, background_foreground
from ..inside.panels import panel
from ..networks.unfolding import Decomposition
from ..networks.weights import load_weights, read_training, trained_size
from .evaluation import decompose
from .fast import optimize
from .options import Prediction

Decomposer = Callable[[Tensor], Decomposition]
Write = Callable[..., None]
Append = Callable[[np.ndarray], None]


def predict(options: Prediction) -> list[Path]:
    """Write the results of every input; returns the files written."""
    if not 0 <= options.threshold <= 1:
        raise ValueError(f"--threshold must be from 0 to 1, got {options.threshold}")
    keep_memory()
    require_device(options.device)
    paths = inputs_in(options.inputs)
    decompose = decomposer(options)
    Path(options.out).mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    skipped: list[str] = []
    faults = skipped if options.skip_bad else None
    with behind() as write:
        for path, picture in progress(ahead(read_all(paths, faults)), "Predicting", len(paths)):
            with skipping(faults):
                if picture is None:
                    written += predict_video(path, decompose, options)
                else:
                    written += predict_picture(path, picture, decompose, options, write)
    report_skipped(skipped)
    return written


def read_all(paths: list[Path], faults: list[str] | None) -> Iterator[tuple[Path, np.ndarray | None]]:
    """Each picture's grey levels, and nothing yet of a video."""
    for path in paths:
        with skipping(faults):
            yield path, None if is_video(path) else read_image(path)


@contextmanager
def skipping(faults: list[str] | None) -> Iterator[None]:
    """Note what is wrong with an input in `faults`; without that list, raise it."""
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        if faults is None:
            raise
        faults.append(str(error))


def predict_picture(
    path: Path, picture: np.ndarray, decompose: Decomposer, options: Prediction, write: Write
) -> list[Path]:
    levels = torch.from_numpy(picture)
    written = []
    for kind, result in results(levels, decompose(levels), options):
        written.append(result_path(path, f"{kind}.png", options))
        write(write_picture, written[-1], result)
    return written


def result_path(path: Path, ending: str, options: Prediction) -> Path:
    return Path(options.out) / f"{stem(path)}_{ending}"


def decomposer(options: Prediction) -> Decomposer:
    """From grey levels (height, width) to their decomposition, by weights or by a classical method."""
    if options.method is not None and options.weights is None:
        method = METHODS[options.method]

        def by_method(levels: Tensor) -> Decomposition:
            image = levels.float().to(options.device)[None, None]
            found = method(image / 255)
            background, logits = 255 * found.background, found.probability.logit(eps=1e-6)
            return Decomposition(background, logits, background + 255 * found.object)

        return by_method
    if options.weights is None or options.method is not None:
        raise ValueError("expected one of --weights and --method")
    net = load_weights(options.weights).to(options.device)
    trained = trained_size(read_training(options.weights))
    size = trained if options.size is None else options.size
    fast = optimize(net, getattr(torch, options.precision), options.compile)
    return lambda levels: decompose(fast, levels, size or None, options.tile)


def predict_video(path: Path, decompose: Decomposer, options: Prediction) -> list[Path]:
    """Background, probability and mask of a video, block by block."""
    together = options.method in VIDEO_METHODS
    written = [result_path(path, f"{kind}.avi", options) for kind in ("background", "probability", "mask")]
    rate = frame_rate(path)
    with ExitStack() as stack, behind() as write:
        files: list[Append] = []
        for block in ahead(read_video(path, options.block if together else 1), 2 if together else AT_ONCE):
            files = files or [stack.enter_context(video_file(p, rate, block.shape[1:])) for p in written]
            background, probability = split_block(block, options) if together else frame(block, decompose)
            parts = (background, probability, (probability > options.threshold).float())
            for append, part in zip(files, parts, strict=True):
                write(append, to_levels(part.clamp(0, 1).cpu().numpy()))
    return written


def split_block(block: np.ndarray, options: Prediction) -> tuple[Tensor, Tensor]:
    """What stays, as a fraction of full brightness, and |what moves| over its largest value."""
    assert options.method is not None
    frames = torch.from_numpy(block).float().to(options.device) / 255
    found = background_foreground(frames, METHODS[options.method])
    size = found.object.abs()
    return found.background, size / size.max().clamp_min(1e-12)


def frame(block: np.ndarray, decompose: Decomposer) -> tuple[Tensor, Tensor]:
    """The background of one frame, as a fraction of full brightness, and the probability of an object."""
    found = decompose(torch.from_numpy(block[0]))
    return found.background[0] / 255, found.object[0].sigmoid()


def inputs_in(inputs: list[str]) -> list[Path]:
    """All pictures and videos of `inputs`; raises where one is missing or two would write the same result."""
    found: dict[str, Path] = {}
    for path in map(Path, inputs):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder; expected pictures")
        for picture in pictures_by_stem(path).values() if path.is_dir() else [path]:
            if path.is_dir() and outside(picture, path):
                raise ValueError(f"{picture}: a link out of {path}; expected the file itself")
            name = stem(picture)
            if name in found:
                raise ValueError(f"{picture}: its results would overwrite those of {found[name]}")
            found[name] = picture
    return list(found.values())


def results(
    levels: Tensor, decomposition: Decomposition, options: Prediction
) -> Iterator[tuple[str, np.ndarray]]:
    """The pictures to write, by the ending of their names: 8-bit arrays, colour in OpenCV's order."""
    probability = decomposition.object.sigmoid()[0, 0].cpu().numpy()
    yield "mask", np.where(probability > options.threshold, 255, 0).astype(np.uint8)
    yield "probability", to_levels(probability)
    if options.panels:
        image = levels[None, None].float().to(decomposition.object.device)
        yield "panel", to_levels(panel(image, decomposition).permute(1, 2, 0).cpu().numpy()[..., ::-1])


def to_levels(fraction: np.ndarray) -> np.ndarray:
    return (255 * fraction).round().astype(np.uint8)


def write_picture(path: Path, picture: np.ndarray) -> None:
    written, content = cv2.imencode(".png", picture)
    if not written:
        raise ValueError(f"{path}: the picture of shape {picture.shape} could not be encoded")
    write_whole(path, content.tobytes())
