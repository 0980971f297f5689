"""What evaluation, prediction and export take, as options of a command line or from Python."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ...datasets.names import DataSetName
from ..names import MethodName, ProtocolName

# Options that are read of networks alone, and what stands in the place of each for anything else; None: nothing.
OF_NETWORKS = {"mean": 0.0, "std": 255.0, "tile": None, "precision": None, "compile": None}


@dataclass
class Evaluation:
    """What to evaluate, on what.

    Args:
        dataset: a published data set, folder (its layout is recognised) or synthetic (generated, needs no root).
        weights: a .safetensors file of train.py, or an officially published .pkl.
        method: a classical method in place of weights.
        predictions: a folder of saved masks or probability maps in their place, called as the pictures are.
        scale: level of the predictions that stands for probability 1; by default recognised from all of them.
        root: the data set's folder.
        split: as the data set names it.
        protocol: overlap (the papers' for infrared), centroid (DNANet, BasicIRSTD), vessel or defect; by default
            the one that the data set is known by, else overlap.
        threshold: a pixel is predicted where its probability exceeds it, in place of the protocol's rule.
        field_of_view: count vessels inside the camera's field of view alone (DRIVE's mask/), not as the papers.
        size: pictures are resized to this height and width; by default as the weights say, else as the data set's
            authors have it; 0 keeps each picture's own size, as does a picture of more than three times that.
        mean: grey level, 0 to 255, that is subtracted, of weights alone; by default as they or the data set say.
        std: grey level that is divided by; likewise.
        levels: what becomes of levels that are not 8 bits: full (the whole range), percentile (what a picture
            uses) or LOW,HIGH; by default as trained, else full where 16 bits fill their range, else percentile.
        tile: larger pictures are cut into overlapping tiles of this size, whose answers are blended.
        count: number of generated scenes (synthetic only; 80 by default).
        seed: of the generated scenes (synthetic only); by default as trained, else 42.
        batch_size: pictures evaluated at once, where they share one size; 4 by default, and of a classical method
            on a GPU as many as its memory holds.
        device: cpu, cuda, ...
        precision: of the network's features, float32 or bfloat16 (faster on GPUs and processors with matrix
            units for it, and less exact; elsewhere it is float32, in this package's GPU kernels a scaled float16).
        compile: fuse elementwise steps with torch.compile, worth its start-up for many pictures.
        skip_bad: leave out pictures that cannot be used, and list them; without it the first ends the run.
        keep_empty: take pictures whose mask holds no object; by default where they belong to the data set.
        json: file to write the numbers to.
        csv: file to write each picture's numbers to.
        curve: file to write IoU, Pd and Fa over thresholds to, as CSV, with a picture beside it.
    """

    dataset: DataSetName
    weights: str | None = None
    method: MethodName | None = None
    predictions: str | None = None
    scale: float | None = None
    root: str | None = None
    split: str = "test"
    protocol: ProtocolName | None = None
    threshold: float | None = None
    field_of_view: bool = False
    size: int | None = None
    mean: float | None = None
    std: float | None = None
    levels: str | None = None
    tile: int = 1024
    count: int | None = None
    seed: int | None = None
    batch_size: int | None = None
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    skip_bad: bool = False
    keep_empty: bool | None = None
    json: str | None = None
    csv: str | None = None
    curve: str | None = None


@dataclass
class Prediction:
    """What to run, on what.

    Args:
        inputs: picture and video files, or folders of them, with all that lie below.
        weights: a .safetensors file of train.py, or an officially published .pkl.
        out: folder for the results; what lies in it already is not looked at.
        method: a classical method in place of weights; its probability is |object| over the picture's largest.
        dataset: what weights that do not say it were trained on, for how pictures are prepared.
        size: pictures are resized to this height and width for the network and its answer back again; by default
            as the weights say, else 256; 0 runs the network at each picture's own size, as does a classical
            method, and a picture of more than three times the size.
        mean: grey level, 0 to 255, that is subtracted, of weights alone; by default as they or the data set say.
        std: grey level that is divided by; likewise.
        levels: what becomes of levels that are not 8 bits: full (the whole range), percentile (what the picture
            uses) or LOW,HIGH; by default full where 16 bits fill their range, else percentile.
        tile: larger pictures are cut into overlapping tiles of this size, whose answers are blended.
        block: frames of a video that pcp, pssv or wnnm split together.
        threshold: probability above which a pixel belongs to an object.
        panels: write STEM_panel.png too.
        detections: write detections.csv and detections.json too, with a row for each object.
        skip_bad: leave out pictures that cannot be read, and list them; without it the first ends the run.
        device: cpu, cuda, ...
        precision: of the network's features, float32 or bfloat16 (faster on GPUs and processors with matrix
            units for it, and less exact; elsewhere it is float32, in this package's GPU kernels a scaled float16).
        compile: fuse elementwise steps with torch.compile, worth its start-up for many pictures of one size.
    """

    inputs: list[str]
    weights: str | None = None
    out: str = "runs/predictions"
    method: MethodName | None = None
    dataset: DataSetName | None = None
    size: int | None = None
    mean: float | None = None
    std: float | None = None
    levels: str | None = None
    tile: int = 1024
    block: int = 200
    threshold: float = 0.5
    panels: bool = False
    detections: bool = False
    skip_bad: bool = False
    device: str = "cpu"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False


@dataclass
class Export:
    """What to export, and as what.

    Args:
        weights: a .safetensors file of train.py, an officially published .pkl or zoo:NAME.
        format: onnx (opset 20), torch-export (a .pt2 program) or safetensors.
        out: the file to write; by default the weights' name with the format's ending, in this folder.
        pictures: picture files or folders on which the export is checked, too, at their own size.
    """

    weights: str
    format: Literal["onnx", "torch-export", "safetensors"] = "onnx"
    out: str | None = None
    pictures: list[str] = field(default_factory=list)


def curve_picture(curve: str | Path) -> Path:
    """Where the picture of a curve's numbers goes: beside them.

    >>> curve_picture("curve.csv").name
    'curve.png'
    """
    return Path(curve).with_suffix(".png")


def refuse_unread(options: Any, beside: str, unread: Mapping[str, Any]) -> None:
    """ValueError where one of `options`, a dataclass, is given that is not read beside the option `beside`.

    unread: the names of such options, each with what stands in its place, which may as well be given.

    >>> refuse_unread(Prediction(["a.png"], method="pcp", std=40.0), "method", {"mean": 0.0, "std": 255.0})
    Traceback (most recent call last):
    ValueError: --std is not read beside --method: leave it out, got 40.0
    """
    defaults = {option.name: option.default for option in fields(options)}
    for name, used in unread.items():
        given = getattr(options, name)
        if given not in (defaults[name], used):
            raise ValueError(f"--{name} is not read beside --{beside}: leave it out, got {given!r}")
