"""Numbers picture by picture and threshold by threshold, as rows of tables."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from unfoldkit.common.files import write_result

from .centroid import CentroidProtocol
from .defect import DefectProtocol
from .overlap import OverlapProtocol
from .protocol import PixelProtocol, TargetProtocol, Targets, pictures, require_pictures
from .vessel import VesselProtocol, inside

Row = dict[str, str | float]
PROTOCOLS: dict[str, type[PixelProtocol] | type[VesselProtocol]] = {
    "overlap": OverlapProtocol,
    "centroid": CentroidProtocol,
    "vessel": VesselProtocol,
    "defect": DefectProtocol,
}


def counted(name: str, threshold: float | None = None) -> PixelProtocol | VesselProtocol:
    """The numbers of the protocol called `name`, without curves; raises ValueError for another name."""
    if name not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name](threshold)


class PictureRows:
    """The protocol's numbers of each picture by itself, in `rows`: {"picture": NAME, "iou": ..., ...}.

    niou is left out, which is a picture's iou. NaN stands for a ratio over nothing. `update` takes the names of a
    batch, and what the protocol takes. Raises ValueError where they are not as many as pictures, or a region comes
    for a protocol without one.

    >>> import torch
    >>> rows = PictureRows("overlap")
    >>> mask = torch.zeros(1, 1, 8, 8)
    >>> mask[..., 2:4, 2:4] = 1
    >>> rows.update(["Misc_1"], 0.9 * mask, mask)
    >>> rows.rows[0]["picture"], rows.rows[0]["iou"]
    ('Misc_1', 1.0)
    """

    def __init__(self, protocol_name: str, threshold: float | None = None) -> None:
        self.numbers = counted(protocol_name, threshold)
        self.rows: list[Row] = []

    def update(
        self, names: Sequence[str], probability: Tensor, mask: Tensor, region: Tensor | None = None
    ) -> None:
        require_pictures(probability, mask)
        inside(region, mask)
        if len(names) != len(probability):
            raise ValueError(f"expected a name for each of {len(probability)} pictures, got {len(names)}")
        for index, name in enumerate(names):
            one = slice(index, index + 1)
            self.numbers.reset()
            if region is None:
                self.numbers.update(probability[one], mask[one])
            elif isinstance(self.numbers, VesselProtocol):
                self.numbers.update(probability[one], mask[one], region[one])
            else:
                raise ValueError("a region is counted in by the protocol 'vessel' alone")
            values = self.numbers.compute().items()
            self.rows.append({"picture": name, **{k: v.item() for k, v in values if k != "niou"}})


class ThresholdCurve:
    """What a protocol counts when a pixel is predicted at p > t, for t = 0, 1/bins, ..., 1 - 1/bins.

    `rows()` gives {"threshold": t, "iou": ..., "f1": ..., "precision": ..., "recall": ...} and, of "overlap" and
    "centroid", pd and fa: what `protocol(name, threshold=t)` gives ("recall" is "sensitivity" of "vessel").
    `update` takes what the protocol takes.

    >>> import torch
    >>> curve = ThresholdCurve("overlap", bins=2)
    >>> curve.update(torch.tensor([[[[0.2, 0.4, 0.7, 0.9]]]]), torch.tensor([[[[0.0, 0.0, 0.0, 1.0]]]]))
    >>> [(row["threshold"], row["iou"], row["pd"]) for row in curve.rows()]
    [(0.0, 0.25, 1.0), (0.5, 0.5, 1.0)]
    """

    def __init__(self, protocol_name: str, bins: int = 50) -> None:
        if bins < 1:
            raise ValueError(f"bins must be at least 1, got {bins}")
        self.numbers = counted(protocol_name)
        self.thresholds = np.arange(bins) / bins
        self.pixels: list[np.ndarray] = []  # of each picture TP, FP, FN at each threshold, (3, bins)
        self.targets: list[list[Targets]] = []

    def update(self, probability: Tensor, mask: Tensor, region: Tensor | None = None) -> None:
        for (p, m), r in zip(pictures(probability, mask), inside(region, mask), strict=True):
            tp, fp = self._above(p[r & m]), self._above(p[r & ~m])
            self.pixels.append(np.stack([tp, fp, (r & m).sum() - tp]))
            if isinstance(self.numbers, TargetProtocol):
                self.targets.append(self._matched(self.numbers, p, m, tp + fp))

    def _above(self, values: np.ndarray) -> np.ndarray:
        """How many of `values` exceed each threshold."""
        thresholds = self.thresholds.astype(values.dtype)
        return len(values) - np.searchsorted(np.sort(values), thresholds, side="right")

    def _matched(
        self, numbers: TargetProtocol, p: np.ndarray, m: np.ndarray, count: np.ndarray
    ) -> list[Targets]:
        """Target-level counts at each threshold; where no pixel comes or goes, those of the one before."""
        found: list[Targets] = []
        for index, threshold in enumerate(self.thresholds.tolist()):
            same = index > 0 and count[index] == count[index - 1]
            found.append(found[-1] if same else numbers.match(p > threshold, m))
        return found

    def rows(self) -> list[Row]:
        pixels = np.array(self.pixels, float).reshape(-1, 3, len(self.thresholds))
        of_vessels = isinstance(self.numbers, VesselProtocol)
        tp, fp, fn = np.moveaxis(pixels if of_vessels else pixels.sum(0, keepdims=True), 1, 0)
        columns = {
            "iou": _mean_ratio(tp, tp + fp + fn, 1.0),
            "f1": _mean_ratio(2 * tp, 2 * tp + fp + fn, 1.0),
            "precision": _mean_ratio(tp, tp + fp),
            "recall": _mean_ratio(tp, tp + fn),
        }
        if isinstance(self.numbers, TargetProtocol):
            counts = np.array(self.targets, float).reshape(-1, len(self.thresholds), 4).sum(0, keepdims=True)
            found, targets, false, all_pixels = np.moveaxis(counts, 2, 0)
            columns |= {"pd": _mean_ratio(found, targets), "fa": _mean_ratio(false, all_pixels)}
        return [
            {"threshold": t, **{name: float(column[index]) for name, column in columns.items()}}
            for index, t in enumerate(self.thresholds.tolist())
        ]


def _mean_ratio(part: np.ndarray, whole: np.ndarray, of_nothing: float = math.nan) -> np.ndarray:
    """part / whole, (pictures, bins), and its mean over the pictures for which it is defined."""
    ratios = np.full(part.shape, of_nothing)
    np.divide(part, whole, out=ratios, where=whole > 0)
    defined = ~np.isnan(ratios)
    total = np.where(defined, ratios, 0).sum(0)
    return np.divide(total, defined.sum(0), out=np.full(total.shape, math.nan), where=defined.any(0))


def write_csv(path: str | Path, rows: Sequence[Mapping[str, str | float]]) -> None:
    """Rows as a table with the first row's columns; an empty cell stands for NaN.

    The folder is made where it is missing. Raises ValueError where there are no rows or they differ in columns,
    OSError where it cannot be written.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "rows.csv"
    >>> write_csv(path, [{"picture": "a", "iou": 0.5}, {"picture": "b", "iou": math.nan}])
    >>> path.read_text().splitlines()
    ['picture,iou', 'a,0.5', 'b,']
    """
    if not rows:
        raise ValueError(f"{path}: no rows to write")
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({name: "" if value != value else value for name, value in row.items()})
    write_result(path, text.getvalue())
