"""What a look inside takes, as options of a command line or from Python."""

from dataclasses import dataclass

from ..names import MethodName


@dataclass
class Interpretation:
    """What to look into, on what.

    Args:
        images: a folder of pictures (not searched below), or one picture.
        weights: a .safetensors file of train.py, or an officially published .pkl.
        method: a classical method in place of weights.
        out: folder for the results.
        names: a file of picture names without ending, one a line, such as a data set's test.txt; by default all.
        show: names of the pictures to draw, separated by commas, or how many, evenly over the folder.
        size: pictures are resized to this height and width; by default as trained, else 256; 0 keeps their own
            size, which must then be one for all.
        batch_size: pictures at once.
        device: cpu, cuda, ...
    """

    images: str
    weights: str | None = None
    method: MethodName | None = None
    out: str = "runs/inside"
    names: str | None = None
    show: str = "4"
    size: int | None = None
    batch_size: int = 4
    device: str = "cpu"
