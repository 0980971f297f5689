"""What `compress_weights` takes, as options of a command line or from Python."""

from dataclasses import dataclass

from ..names import CompressionName


@dataclass
class Compression:
    """What to compress, how and how far.

    Args:
        weights: a .safetensors file of train.py, an officially published .pkl or zoo:NAME.
        method: separable (sums of separable filters), monarch (block-diagonal factors), dictionary (times sparse
            coefficients) or low_rank_plus_sparse.
        size: share of the parameters that is kept.
        pictures: a folder of pictures, or one, such as it was trained on, which say what errors matter.
        count: how many of them to look at, evenly over the folder.
        out: the file to write; by default NAME-METHOD-SIZE.safetensors in this folder.
        json: file to write the report to.
    """

    weights: str
    method: CompressionName = "separable"
    size: float = 0.5
    pictures: str | None = None
    count: int = 12
    out: str | None = None
    json: str | None = None
