"""Background, probability and mask of a video, block by block."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unfoldkit.common.streaming import AT_ONCE, ahead, behind

from ...datasets.reading.levels import levels_of
from ...datasets.reading.video import frame_rate, read_video, video_file, video_levels
from ..classical import METHODS, VIDEO_METHODS, background_foreground
from ..networks.unfolding import Decomposition
from .detections import Detection, Levels, detections_in
from .evaluation import probability_of
from .options import Prediction

KINDS = ("background", "probability", "mask")
Append = Callable[[np.ndarray], None]


class VideoResult(NamedTuple):
    """The files written and, where asked for, the objects of each frame, called NAME_0001, ..., and its levels."""

    written: list[Path]
    detections: list[Detection]
    frames: list[Levels]


def predict_video(
    path: Path, name: str, decomposer: Callable[[Tensor], Decomposition], options: Prediction
) -> VideoResult:
    """Write the videos NAME_background.avi, NAME_probability.avi and NAME_mask.avi, whole or not at all."""
    together = options.method in VIDEO_METHODS
    written = [Path(options.out) / f"{name}_{kind}.avi" for kind in KINDS]
    written[0].parent.mkdir(parents=True, exist_ok=True)
    rate, count = frame_rate(path), options.block if together else 1
    detections: list[Detection] = []
    frames: list[Levels] = []
    seen = ("full", 0.0, 255.0)
    with ExitStack() as stack, behind() as write:
        files: list[Append] = []
        for block in ahead(read_video(path, count, levels_of(options.levels)), 2 if together else AT_ONCE):
            files = files or [stack.enter_context(video_file(p, rate, block.shape[1:])) for p in written]
            background, probability = split_block(block, options) if together else frame(block, decomposer)
            parts = (background, probability, (probability > options.threshold).float())
            for append, part in zip(files, parts, strict=True):
                write(append, (255 * part.clamp(0, 1).cpu().numpy()).round().astype(np.uint8))
            if options.detections and not frames:
                seen = levels_seen(path, block, options)
            for plane in probability if options.detections else ():
                frames.append(Levels(f"{name}_{len(frames) + 1:04d}", *seen))
                detections += detections_in(plane.float().cpu().numpy(), frames[-1], options.threshold)
    return VideoResult(written, detections, frames)


def levels_seen(path: Path, block: np.ndarray, options: Prediction) -> tuple[str, float, float]:
    """How the levels of a video were chosen, and those that became 0 and 255."""
    given = levels_of(options.levels)
    chosen = video_levels(path, given)
    if isinstance(chosen, str):
        return "full", 0, 255 if block.dtype == np.uint8 else 65535
    return "given" if chosen == given else "percentile", *chosen


def split_block(block: np.ndarray, options: Prediction) -> tuple[Tensor, Tensor]:
    """What stays, as a fraction of full brightness, and |what moves| over its largest value."""
    assert options.method is not None
    frames = torch.from_numpy(block).float().to(options.device) / 255
    found = background_foreground(frames, METHODS[options.method])
    size = found.object.abs()
    return found.background, size / size.max().clamp_min(1e-12)


def frame(block: np.ndarray, decomposer: Callable[[Tensor], Decomposition]) -> tuple[Tensor, Tensor]:
    """The background of one frame, as a fraction of full brightness, and the probability of an object."""
    found = decomposer(torch.from_numpy(block[0]))
    return found.background[0] / 255, probability_of(found)[0]
