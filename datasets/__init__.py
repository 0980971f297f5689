"""Pictures with masks: read from published layouts or made up from a seed, and prepared for a network."""

from .catalogue import open_pictures
from .files import Pair, PictureFiles
from .inputs import inputs_in
from .levels import Graded, grade
from .masks import objects
from .picture import Picture, Sample, read_graded, read_image, read_mask, read_pages
from .preparation import Pictures, SegmentationDataset, normalise
from .records import NAMES, PUBLISHED, DataSet, Preparation, Recipe, protocol_of, record_of
from .synthetic import SyntheticScenes

__all__ = [
    "NAMES",
    "PUBLISHED",
    "DataSet",
    "Graded",
    "Pair",
    "Picture",
    "PictureFiles",
    "Pictures",
    "Preparation",
    "Recipe",
    "Sample",
    "SegmentationDataset",
    "SyntheticScenes",
    "grade",
    "inputs_in",
    "normalise",
    "objects",
    "open_pictures",
    "protocol_of",
    "read_graded",
    "read_image",
    "read_mask",
    "read_pages",
    "record_of",
]
