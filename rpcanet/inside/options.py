"""What a look inside takes, as options of a command line or from Python."""

from dataclasses import dataclass

from ...datasets.names import DataSetName
from ..names import MethodName


@dataclass
class Interpretation:
    """What to look into, on what.

    Args:
        images: a folder of pictures, with all that lie below, or one picture.
        weights: a .safetensors file of train.py, or an officially published .pkl.
        method: a classical method in place of weights.
        out: folder for the results; what lies in it already is not looked at.
        names: a file of picture names without ending, one a line, such as a data set's test.txt; by default all.
        show: names of the pictures to draw, separated by commas; a number that is no name is how many, evenly over
            the folder; by default four.
        dataset: what weights that do not say it were trained on, for how pictures are prepared.
        size: pictures are resized to this height and width; by default as the weights say, else 256; 0 keeps
            their own size, which must then be one for all.
        mean: grey level, 0 to 255, that is subtracted; by default as the weights or the data set say.
        std: grey level that is divided by; likewise.
        levels: what becomes of levels that are not 8 bits: full, percentile or LOW,HIGH.
        batch_size: pictures at once.
        device: cpu, cuda, ...
    """

    images: str
    weights: str | None = None
    method: MethodName | None = None
    out: str = "runs/inside"
    names: str | None = None
    show: str | None = None
    dataset: DataSetName | None = None
    size: int | None = None
    mean: float | None = None
    std: float | None = None
    levels: str | None = None
    batch_size: int = 4
    device: str = "cpu"
