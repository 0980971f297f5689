"""What is counted while pictures go by: a protocol over all of them, and where asked each alone, and a curve."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..metrics import PictureRows, ThresholdCurve, protocol
from ..metrics.rows import Row


class Counts:
    """The numbers of a protocol over pictures.

    threshold: in place of the protocol's rule.  regions: of "vessel", where to count in each picture by its name,
    (height, width).  each: keep every picture's own numbers in `rows`.  bins: thresholds of `curve`; 0 for none.

    >>> counts = Counts("overlap", each=True)
    >>> mask = torch.zeros(1, 1, 8, 8)
    >>> mask[..., 2:4, 2:4] = 1
    >>> counts.update(["Misc_1"], 0.9 * mask, mask)
    >>> counts.values()["iou"], counts.rows[0]["picture"]
    (1.0, 'Misc_1')
    """

    def __init__(
        self,
        protocol_name: str,
        threshold: float | None = None,
        regions: Mapping[str, np.ndarray] | None = None,
        each: bool = False,
        bins: int = 0,
    ) -> None:
        self.metrics, self.regions = protocol(protocol_name, threshold), regions
        self.pictures = PictureRows(protocol_name, threshold) if each else None
        self.thresholds = ThresholdCurve(protocol_name, bins) if bins else None

    def update(self, names: Sequence[str], probability: Tensor, mask: Tensor) -> None:
        """Count (batch, 1, height, width) probabilities and masks of the pictures called `names`."""
        region = {} if self.regions is None else {"region": self._region(names, self.regions)}
        self.metrics.update(probability, mask, **region)
        if self.pictures is not None:
            self.pictures.update(names, probability, mask, **region)
        if self.thresholds is not None:
            self.thresholds.update(probability, mask, **region)

    def values(self) -> dict[str, float]:
        """The protocol's scalars, NaN where one is undefined."""
        return {name: value.item() for name, value in self.metrics.compute().items() if value.ndim == 0}

    @property
    def rows(self) -> list[Row]:
        return [] if self.pictures is None else self.pictures.rows

    @property
    def curve(self) -> list[Row]:
        return [] if self.thresholds is None else self.thresholds.rows()

    @staticmethod
    def _region(names: Sequence[str], regions: Mapping[str, np.ndarray]) -> Tensor:
        return torch.stack([torch.as_tensor(regions[name])[None] for name in names])
