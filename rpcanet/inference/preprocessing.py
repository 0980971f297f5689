"""What pictures go through before a network sees them: as its weights say, else as its data set is read."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...datasets import record_of
from ...datasets.names import Grey
from ...datasets.records import RECORDS, padding_of
from ..networks.unfolding import UnfoldedNetwork
from ..networks.weights import load_weights, read_training, trained_size

MUCH_LARGER = 3  # times the size that a network was trained at; larger pictures keep their own


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a network's input, (level - mean) / std.

    size: height and width that pictures are resized to; 0 for their own.
    mean, std: in grey levels, 0 to 255.  grey: how colour becomes grey.
    levels: what becomes of levels that are not 8 bits, as `datasets.read_image` takes it; None for its default.
    largest: height or width up to which a picture is resized; a larger one keeps its own size, in tiles.
    padding: the multiple that height and width are then padded to.
    """

    size: int = 256
    mean: float = 0.0
    std: float = 255.0
    grey: Grey = "opencv"
    levels: str | None = None
    largest: float = math.inf
    padding: int = 1

    @property
    def unit(self) -> str:
        """What a level of the input is.

        >>> Preprocessing().unit, Preprocessing(mean=90, std=40).unit
        ('level / 255', '(level - 90) / 40')
        """
        return f"level / {self.std:g}" if not self.mean else f"(level - {self.mean:g}) / {self.std:g}"


def prepared_network(
    weights: str | Path, dataset: str | None = None, **given: Any
) -> tuple[UnfoldedNetwork, Preprocessing]:
    """The network in a weights file, and how its pictures are prepared.

    What the file itself says wins; a file that says nothing, as the papers' do, takes what its data set's record
    says; else 256x256 and level / 255 are assumed, in a line that says so. `given` overrides any of it. Pictures
    of more than three times the size found keep their own; where the size is given none does.

    Raises what `load_weights` raises.
    """
    net = load_weights(weights)
    found = _found(net, weights, dataset)
    if given.get("size") is None and found.size:
        found = replace(found, largest=MUCH_LARGER * found.size)
    found = replace(found, **{name: value for name, value in given.items() if value is not None})
    net.mean, net.std = float(found.mean), float(found.std)
    return net, found


def _found(net: UnfoldedNetwork, weights: str | Path, dataset: str | None) -> Preprocessing:
    training = read_training(weights)
    data = training.get("data", {})
    if "size" in data:
        grey: Grey = "pillow" if data.get("grey") == "pillow" else "opencv"
        padding = padding_of(training.get("recipe", {}).get("protocol", ""))
        return Preprocessing(
            trained_size(training), net.mean, net.std, grey, data.get("levels"), padding=padding
        )
    if dataset in RECORDS:
        known = record_of(dataset).preparation
        mean, std = (net.mean, net.std) if data else (known.mean, known.std)
        return Preprocessing(known.size, mean, std, known.grey, padding=known.padding)
    assumed = Preprocessing(mean=net.mean, std=net.std)
    print(
        f"{weights} does not say how its pictures were prepared: assuming 256x256 and {assumed.unit}; "
        "--dataset, --size, --mean and --std change it"
    )
    return assumed
