"""Classical robust PCA on `kernels`: the methods that the networks unfold, to compare with.

Each takes pictures or matrices (..., height, width) and returns a `Separation` of background and objects.
"""

from collections.abc import Callable

from torch import Tensor

from .ipi import ipi
from .pstnn import pstnn
from .robust_pca import pcp, pssv, wnnm
from .separation import Separation
from .video import background_foreground

METHODS: dict[str, Callable[[Tensor], Separation]] = {
    "pcp": pcp,
    "pssv": pssv,
    "wnnm": wnnm,
    "ipi": ipi,
    "pstnn": pstnn,
}

VIDEO_METHODS = ("pcp", "pssv", "wnnm")

__all__ = [
    "METHODS",
    "VIDEO_METHODS",
    "Separation",
    "background_foreground",
    "ipi",
    "pcp",
    "pssv",
    "pstnn",
    "wnnm",
]
