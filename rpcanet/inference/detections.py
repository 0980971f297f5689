"""The objects of a probability map as a list: where each is, how large and how sure."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unfoldkit.common.files import write_whole

from ..metrics.protocol import components


class Levels(NamedTuple):
    """How the levels of a picture's file became grey: `low` as 0 and `high` as 255, chosen as `levels` says."""

    picture: str
    levels: str
    low: float
    high: float


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


def detections_in(probability: np.ndarray, seen: Levels, threshold: float = 0.5) -> Iterator[Detection]:
    """The objects of one picture's probability map (height, width), in raster order of their first pixel.

    >>> probability = np.zeros((4, 6), np.float32)
    >>> probability[1, 2:4] = 0.75
    >>> found = next(detections_in(probability, Levels("a", "full", 0, 255)))
    >>> found.x, found.y, found.area, found.width, found.height, found.peak
    (2.5, 1.0, 2, 2, 1, 0.75)
    """
    number, labels, areas, centroids = components(probability > threshold)
    for k in range(number):
        rows, columns = np.nonzero(labels == k + 1)
        inside = probability[rows, columns]
        left, top = int(columns.min()), int(rows.min())
        yield Detection(
            seen.picture,
            float(centroids[k][0]),
            float(centroids[k][1]),
            int(areas[k]),
            left,
            top,
            int(columns.max()) - left + 1,
            int(rows.max()) - top + 1,
            float(inside.max()),
            float(inside.mean()),
            seen.low,
            seen.high,
        )


def write_detections(
    folder: Path, detections: Sequence[Detection], pictures: Sequence[Levels], threshold: float
) -> list[Path]:
    """detections.csv, a row for each object, and detections.json, with the threshold and each picture's levels."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(Detection._fields)
    writer.writerows(detections)
    content = {
        "threshold": threshold,
        "pictures": [seen._asdict() for seen in pictures],
        "detections": [found._asdict() for found in detections],
    }
    paths = [folder / "detections.csv", folder / "detections.json"]
    for path, whole in zip(paths, (text.getvalue(), json.dumps(content, indent=1) + "\n"), strict=True):
        write_whole(path, whole)
    return paths
