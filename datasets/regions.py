"""Where in a picture there is anything to see: the camera's field of view, as retinal data sets have it."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .files import Pair
from .reading.picture import read_mask, stem


def fields_of_view(pairs: Iterable[Pair]) -> dict[str, np.ndarray]:
    """The field of view of each picture by its name, uint8 (height, width) of 0 and 1.

    It is looked for as DRIVE has it: mask/NAME_mask.* beside the folder of the picture NAME.

    Raises FileNotFoundError where a picture has none, ValueError where it cannot be read.
    """
    return {pair.name: read_mask(_file_of(pair.image)) for pair in pairs}


def _file_of(image: Path) -> Path:
    folder = image.parent.parent / "mask"
    found = sorted(folder.glob(f"{stem(image)}_mask.*"))
    if not found:
        raise FileNotFoundError(f"{folder}/{stem(image)}_mask.*: no field of view of {image}")
    return found[0]
