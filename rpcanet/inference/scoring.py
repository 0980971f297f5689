"""Numbers of predictions that were saved to files, by any program, under any protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..metrics.rows import Row
from .counting import Counts
from .saved_maps import matched, read_map, recognised_scale, summarised

RULES = {
    "overlap": "p / max(p) > 0.5",
    "centroid": "p > 0.5",
    "vessel": "p > 0.5",
    "defect": "p / max(p) > 0.5",
}


class Samples(Protocol):
    """What can be counted and indexed."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Scores:
    """What `score_predictions` found.

    values: the protocol's numbers over all pictures, NaN where one is undefined.
    rows: its numbers of each picture, see `PictureRows`.  curve: over thresholds, see `ThresholdCurve`.
    assumptions: how the files were read, a sentence each.
    """

    values: dict[str, float]
    rows: list[Row]
    curve: list[Row]
    assumptions: list[str]


def score_predictions(
    folder: str | Path,
    samples: Samples,
    protocol_name: str = "overlap",
    threshold: float | None = None,
    scale: float | None = None,
    regions: Mapping[str, np.ndarray] | None = None,
    bins: int = 50,
) -> Scores:
    """Count the masks or probability maps in `folder` as `protocol_name` says.

    folder: a file for each sample, called as it is, with _probability, _prob, _prediction, _pred, _mask or nothing
    after its name; PNG of 8 or 16 bits, TIFF, .mat, .npy, ...
    samples: what to compare with, such as a `SegmentationDataset`; each has `name` and `mask`, whose objects are
    above 0. Nothing is resized: a prediction has its mask's size, so that of a network at 256x256 asks for masks
    at 256x256.
    threshold: a pixel is predicted when its probability exceeds it, in place of the protocol's rule.
    scale: the level that stands for probability 1; by default it is recognised (`recognised_scale`).
    regions: of "vessel", where to count in each sample by its name, (height, width), above 0.
    bins: thresholds of the curve; 0 for none.

    Raises FileNotFoundError where a prediction is missing, ValueError where one cannot be read, has another size,
    or where it is ambiguous what the levels mean; the message names the file.

    >>> import tempfile
    >>> from unfoldkit.datasets import SyntheticScenes
    >>> scenes, made = SyntheticScenes("test", count=2, size=64), Path(tempfile.mkdtemp())
    >>> for scene in scenes:
    ...     np.save(made / f"{scene.name}_pred.npy", 255 * scene.mask)
    >>> scores = score_predictions(made, scenes)
    >>> scores.values["iou"], scores.rows[0]["picture"], scores.assumptions[1]
    (1.0, 'test_0000', 'the predictions are masks, of 0 and 255')
    """
    counts = Counts(protocol_name, threshold, regions, each=True, bins=bins)
    masks = {samples[index].name: _plane(samples[index].mask) for index in range(len(samples))}
    if len(masks) != len(samples) or not masks:
        raise ValueError(f"expected samples of different names, got {len(samples)} with {len(masks)} names")
    files, assumptions = matched(Path(folder), list(masks))
    top, meaning = recognised_scale((summarised(path) for path in files.values()), scale)
    for name, mask in masks.items():
        counts.update([name], _probability(files[name], name, mask, top), mask)
    rule = RULES[protocol_name] if threshold is None else f"p > {threshold:g}"
    return Scores(
        counts.values(),
        counts.rows,
        counts.curve,
        [*assumptions, meaning, f"a pixel is predicted where {rule}"],
    )


def _plane(levels: Tensor | np.ndarray) -> Tensor:
    """(..., height, width) of one picture as (1, 1, height, width); raises ValueError where it is not one."""
    plane = torch.as_tensor(levels)
    if plane.ndim < 2 or plane.shape[:-2].numel() != 1:
        raise ValueError(f"mask must be one picture (height, width), got shape {tuple(plane.shape)}")
    return plane.reshape(1, 1, *plane.shape[-2:])


def _probability(path: Path, name: str, mask: Tensor, scale: float) -> Tensor:
    levels = read_map(path)
    if levels.shape != mask.shape[2:]:
        raise ValueError(
            f"{path}: a prediction of {_size(levels.shape)} pixels, but the mask of {name!r} has "
            f"{_size(mask.shape[2:])}, as it is compared; predictions are not resized, evaluate.py's --size 0 "
            "takes masks at their own size"
        )
    return _plane(levels.astype(np.result_type(levels.dtype, np.float32)) / scale)


def _size(shape: Sequence[int]) -> str:
    return f"{shape[1]}x{shape[0]}"


def curve_figure(curve: Sequence[Row], title: str = "") -> Figure:
    """IoU (and pd, or recall) over the threshold, and fa (or one minus precision) beside them.

    >>> len(curve_figure([{"threshold": 0.0, "iou": 0.2, "pd": 1.0, "fa": 1e-4}]).axes)
    2
    """
    of_targets = "pd" in curve[0]
    found, false = ("pd", "fa") if of_targets else ("recall", "precision")
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    thresholds = [row["threshold"] for row in curve]
    for name, marker in (("iou", "o"), (found, "s")):
        left.plot(thresholds, [row[name] for row in curve], marker=marker, markevery=0.1, label=name)
    left.set_ylim(-0.02, 1.02)
    left.legend()
    right.plot(thresholds, [row[false] for row in curve], marker="^", markevery=0.1, color="C2", label=false)
    right.set_yscale("symlog" if of_targets else "linear", **({"linthresh": 1e-6} if of_targets else {}))
    right.legend()
    for axes in (left, right):
        axes.set_xlabel("threshold t, predicted where p > t")
        axes.grid(alpha=0.3)
    return figure
