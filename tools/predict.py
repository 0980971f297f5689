"""Run trained weights on pictures: where are the objects?

    python tools/predict.py --weights runs/train/best.safetensors picture.png folder/ --out DIR

For each picture, at its own size:

    STEM_mask.png         255 where the probability of an object exceeds --threshold, else 0
    STEM_probability.png  probability times 255
    STEM_panel.png        input, probability, background and object side by side (with --panels)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from console import described_parser, one_line_errors

if TYPE_CHECKING:
    from torch import Tensor

    from rpcanet import Decomposition


@dataclass
class Prediction:
    """What to run, on what.

    Args:
        inputs: picture files, or folders of pictures (not searched below).
        weights: a .safetensors file of train.py, or an officially published .pkl.
        out: folder for the results.
        size: pictures are resized to this height and width for the network and its answer back again; by default
            as trained, else 256; 0 runs the network at each picture's own size.
        threshold: probability above which a pixel belongs to an object.
        panels: write STEM_panel.png too.
        device: cpu, cuda, ...
        precision: of the network's features, float32 or bfloat16 (several times faster, and less exact).
        compile: fuse elementwise steps with torch.compile, worth its start-up for many pictures of one size.
    """

    inputs: list[str]
    weights: str
    out: str
    size: int | None = None
    threshold: float = 0.5
    panels: bool = False
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False


def predict(options: Prediction) -> list[Path]:
    """Write the results of every input; returns the files written."""
    import torch
    from rich.progress import track

    import rpcanet
    from datasets import read_image

    if not 0 <= options.threshold <= 1:
        raise ValueError(f"--threshold must be from 0 to 1, got {options.threshold}")
    paths = pictures_in(options.inputs)
    net = rpcanet.load_weights(options.weights).to(options.device)
    fast = rpcanet.optimize(net, getattr(torch, options.precision), options.compile)
    size = options.size
    if size is None:
        size = rpcanet.read_training(options.weights).get("data", {}).get("size", 256)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for path in track(paths, "Predicting"):
        levels = torch.from_numpy(read_image(path))
        decomposition = rpcanet.decompose(fast, levels, size or None)
        for kind, picture in results(levels, decomposition, options):
            written.append(out / f"{path.stem}_{kind}.png")
            write_picture(written[-1], picture)
    return written


def pictures_in(inputs: list[str]) -> list[Path]:
    """All picture files of `inputs`; raises where one is missing or two would write the same result."""
    from datasets.files import pictures_by_stem

    found: dict[str, Path] = {}
    for path in map(Path, inputs):
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder; expected pictures")
        for picture in pictures_by_stem(path).values() if path.is_dir() else [path]:
            if picture.stem in found:
                raise ValueError(f"{picture}: its results would overwrite those of {found[picture.stem]}")
            found[picture.stem] = picture
    return list(found.values())


def results(
    levels: "Tensor", decomposition: "Decomposition", options: Prediction
) -> Iterator[tuple[str, np.ndarray]]:
    """The pictures to write, by the ending of their names: 8-bit arrays, colour in OpenCV's order."""
    from rpcanet.panels import panel

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

    written, content = cv2.imencode(".png", picture)
    if not written:
        raise ValueError(f"{path}: the picture of shape {picture.shape} could not be encoded")
    path.write_bytes(content.tobytes())


def main() -> None:
    parser = described_parser("predict.py", __doc__)
    parser.add_argument("inputs", nargs="+", type=str, help="picture files, or folders of pictures")
    parser.add_class_arguments(Prediction, skip={"inputs", "panels"})
    parser.add_argument("--panels", action="store_true", help="write STEM_panel.png too")
    options = Prediction(**parser.parse_args().as_dict())
    with one_line_errors("predict.py"):
        written = predict(options)
        print(f"{len(written)} files written to {options.out}")


if __name__ == "__main__":
    main()
