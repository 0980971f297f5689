"""Run trained weights, or a classical method, on pictures and videos: where are the objects?

    python tools/predict.py --weights runs/train/best.safetensors picture.png folder/ --out DIR
    python tools/predict.py --method ipi picture.png --out DIR
    python tools/predict.py --method pcp video.mp4 --out DIR

For each picture, at its own size:

    STEM_mask.png         255 where the probability of an object exceeds --threshold, else 0
    STEM_probability.png  probability times 255
    STEM_panel.png        input, probability, background and object side by side (with --panels)

Of a video STEM_background.avi, STEM_probability.avi and STEM_mask.avi are left. Weights, ipi and pstnn take it
frame by frame; pcp, pssv and wnnm split --block frames at a time into what stays and what moves.

Pictures and frames are read ahead of the computation and written behind it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from unfoldkit.common.console import (
    MethodName,
    described_parser,
    keep_memory,
    one_line_errors,
    report_skipped,
    require_device,
)
from unfoldkit.common.streaming import AT_ONCE, ahead, behind

if TYPE_CHECKING:
    from torch import Tensor

    from unfoldkit.rpcanet import Decomposition

    Decomposer = Callable[[Tensor], Decomposition]
    Write = Callable[..., None]
    Append = Callable[[np.ndarray], None]


@dataclass
class Prediction:
    """What to run, on what.

    Args:
        inputs: picture files, or folders of pictures (not searched below).
        weights: a .safetensors file of train.py, or an officially published .pkl.
        out: folder for the results.
        method: a classical method in place of weights; its probability is |object| over the picture's largest.
        size: pictures are resized to this height and width for the network and its answer back again; by default
            as trained, else 256; 0 runs the network at each picture's own size, as does a classical method.
        tile: larger pictures are cut into overlapping tiles of this size, whose answers are blended.
        block: frames of a video that pcp, pssv or wnnm split together.
        threshold: probability above which a pixel belongs to an object.
        panels: write STEM_panel.png too.
        skip_bad: leave out pictures that cannot be read, and list them; without it the first ends the run.
        device: cpu, cuda, ...
        precision: of the network's features, float32 or bfloat16 (faster on GPUs and
            processors with matrix units for it, and less exact; elsewhere it is float32).
        compile: fuse elementwise steps with torch.compile, worth its start-up for many pictures of one size.
    """

    inputs: list[str]
    weights: str | None = None
    out: str = "runs/predictions"
    method: MethodName | None = None
    size: int | None = None
    tile: int = 1024
    block: int = 200
    threshold: float = 0.5
    panels: bool = False
    skip_bad: bool = False
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False


def predict(options: Prediction) -> list[Path]:
    """Write the results of every input; returns the files written."""
    from rich.progress import track

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
        for path, picture in track(ahead(read_all(paths, faults)), "Predicting", len(paths)):
            with skipping(faults):
                if picture is None:
                    written += predict_video(path, decompose, options)
                else:
                    written += predict_picture(path, picture, decompose, options, write)
    report_skipped(skipped)
    return written


def read_all(paths: list[Path], faults: list[str] | None) -> Iterator[tuple[Path, np.ndarray | None]]:
    """Each picture's grey levels, and nothing yet of a video."""
    from unfoldkit.datasets import read_image
    from unfoldkit.datasets.video import is_video

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
    path: Path, picture: np.ndarray, decompose: "Decomposer", options: Prediction, write: "Write"
) -> list[Path]:
    import torch

    levels = torch.from_numpy(picture)
    written = []
    for kind, result in results(levels, decompose(levels), options):
        written.append(result_path(path, f"{kind}.png", options))
        write(write_picture, written[-1], result)
    return written


def result_path(path: Path, ending: str, options: Prediction) -> Path:
    from unfoldkit.datasets.picture import stem

    return Path(options.out) / f"{stem(path)}_{ending}"


def decomposer(options: Prediction) -> "Decomposer":
    """From grey levels (height, width) to their decomposition, by weights or by a classical method."""
    import torch

    from unfoldkit import rpcanet
    from unfoldkit.rpcanet.classical import METHODS

    if options.method is not None and options.weights is None:
        method = METHODS[options.method]

        def by_method(levels: "Tensor") -> "Decomposition":
            image = levels.float().to(options.device)[None, None]
            found = method(image / 255)
            background, logits = 255 * found.background, found.probability.logit(eps=1e-6)
            return rpcanet.Decomposition(background, logits, background + 255 * found.object)

        return by_method
    if options.weights is None or options.method is not None:
        raise ValueError("expected one of --weights and --method")
    net = rpcanet.load_weights(options.weights).to(options.device)
    trained = rpcanet.trained_size(rpcanet.read_training(options.weights))
    size = trained if options.size is None else options.size
    fast = rpcanet.optimize(net, getattr(torch, options.precision), options.compile)
    return lambda levels: rpcanet.decompose(fast, levels, size or None, options.tile)


def predict_video(path: Path, decompose: "Decomposer", options: Prediction) -> list[Path]:
    """Background, probability and mask of a video, block by block."""
    from unfoldkit.datasets.video import frame_rate, read_video, video_file
    from unfoldkit.rpcanet.classical import VIDEO_METHODS

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


def split_block(block: np.ndarray, options: Prediction) -> "tuple[Tensor, Tensor]":
    """What stays, as a fraction of full brightness, and |what moves| over its largest value."""
    import torch

    from unfoldkit.rpcanet.classical import METHODS, background_foreground

    assert options.method is not None
    frames = torch.from_numpy(block).float().to(options.device) / 255
    found = background_foreground(frames, METHODS[options.method])
    size = found.object.abs()
    return found.background, size / size.max().clamp_min(1e-12)


def frame(block: np.ndarray, decompose: "Decomposer") -> "tuple[Tensor, Tensor]":
    """The background of one frame, as a fraction of full brightness, and the probability of an object."""
    import torch

    found = decompose(torch.from_numpy(block[0]))
    return found.background[0] / 255, found.object[0].sigmoid()


def inputs_in(inputs: list[str]) -> list[Path]:
    """All pictures and videos of `inputs`; raises where one is missing or two would write the same result."""
    from unfoldkit.datasets.files import outside
    from unfoldkit.datasets.files import pictures_in as pictures_by_stem
    from unfoldkit.datasets.picture import stem

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
    levels: "Tensor", decomposition: "Decomposition", options: Prediction
) -> Iterator[tuple[str, np.ndarray]]:
    """The pictures to write, by the ending of their names: 8-bit arrays, colour in OpenCV's order."""
    from unfoldkit.rpcanet.inside.panels import panel

    probability = decomposition.object.sigmoid()[0, 0].cpu().numpy()
    yield "mask", np.where(probability > options.threshold, 255, 0).astype(np.uint8)
    yield "probability", to_levels(probability)
    if options.panels:
        image = levels[None, None].float().to(decomposition.object.device)
        yield "panel", to_levels(panel(image, decomposition).permute(1, 2, 0).cpu().numpy()[..., ::-1])


def to_levels(fraction: np.ndarray) -> np.ndarray:
    return (255 * fraction).round().astype(np.uint8)


def write_picture(path: Path, picture: np.ndarray) -> None:
    import cv2

    from unfoldkit.common.files import write_whole

    written, content = cv2.imencode(".png", picture)
    if not written:
        raise ValueError(f"{path}: the picture of shape {picture.shape} could not be encoded")
    write_whole(path, content.tobytes())


def main() -> None:
    parser = described_parser("predict.py", __doc__)
    parser.add_argument("inputs", nargs="+", type=str, help="picture files, or folders of pictures")
    parser.add_class_arguments(Prediction, skip={"inputs", "panels", "skip_bad"})
    parser.add_argument("--panels", action="store_true", help="write STEM_panel.png too")
    parser.add_argument("--skip_bad", "--skip-bad", action="store_true", help="leave out unreadable inputs")
    options = Prediction(**parser.parse_args().as_dict())
    with one_line_errors("predict.py"):
        written = predict(options)
        print(f"{len(written)} files written to {options.out}")


if __name__ == "__main__":
    main()
