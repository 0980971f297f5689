"""The objects of a probability map as a list: where each is, how large and how sure."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unfoldkit.common.files import write_whole

from ...datasets.reading.levels import Graded
from ..metrics.protocol import components
from ..networks.unfolding import Decomposition


class Detection(NamedTuple):
    """One object, an 8-connected component of the pixels above the threshold; positions in pixels of the picture.

    picture: its name.  x, y: the centroid's column and row.  area: in pixels.
    left, top, width, height: the bounding box.  peak, mean: of the object's probability.
    low, high: the file's levels that the network saw as 0 and 255.
    """

    picture: str
    x: float
    y: float
    area: int
    left: int
    top: int
    width: int
    height: int
    peak: float
    mean: float
    low: float
    high: float


def detections_in(
    name: str, graded: Graded, answer: Decomposition, threshold: float = 0.5
) -> Iterator[Detection]:
    """The objects of one picture, in raster order of their first pixel."""
    probability = answer.object.sigmoid()[0, 0].float().cpu().numpy()
    number, labels, areas, centroids = components(probability > threshold)
    for k in range(number):
        rows, columns = np.nonzero(labels == k + 1)
        inside = probability[rows, columns]
        left, top = int(columns.min()), int(rows.min())
        yield Detection(
            name,
            float(centroids[k][0]),
            float(centroids[k][1]),
            int(areas[k]),
            left,
            top,
            int(columns.max()) - left + 1,
            int(rows.max()) - top + 1,
            float(inside.max()),
            float(inside.mean()),
            graded.low,
            graded.high,
        )


def write_detections(folder: Path, detections: Sequence[Detection], threshold: float) -> list[Path]:
    """detections.csv, a row for each object, and detections.json, which states the threshold too."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(Detection._fields)
    writer.writerows(detections)
    content = {"threshold": threshold, "detections": [found._asdict() for found in detections]}
    paths = [folder / "detections.csv", folder / "detections.json"]
    for path, whole in zip(paths, (text.getvalue(), json.dumps(content, indent=1) + "\n"), strict=True):
        write_whole(path, whole)
    return paths
