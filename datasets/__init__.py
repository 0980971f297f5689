"""Pictures with masks: read from published layouts or made up from a seed, and prepared for a network."""

from .catalogue import NAMES, PUBLISHED, open_pictures, protocol_of
from .files import Pair, PictureFiles
from .picture import Picture, Sample, read_image, read_mask
from .preparation import Pictures, SegmentationDataset, normalise
from .synthetic import SyntheticScenes

__all__ = [
    "NAMES",
    "PUBLISHED",
    "Pair",
    "Picture",
    "PictureFiles",
    "Pictures",
    "Sample",
    "SegmentationDataset",
    "SyntheticScenes",
    "normalise",
    "open_pictures",
    "protocol_of",
    "read_image",
    "read_mask",
]
