"""What is known of each data set, in one place: where it comes from, how it is read, trained on and scored."""

from typing import Literal, NamedTuple

from .layouts import (
    CHASE_DB1,
    DRIVE,
    IRSTD_1K,
    LISTED,
    NEU_SEG,
    SD_SALIENCY_900,
    SIRST_V2,
    SPLIT_FOLDERS,
    STARE,
    Layout,
)
from .names import Grey
from .reading.masks import ObjectLevel

Protocol = Literal["overlap", "vessel", "defect"]


class Preparation(NamedTuple):
    """How a picture and its mask reach the network.

    grey: how colour becomes grey, see `read_image`.
    size: height and width that pictures are resized to; 0 for their own.
    mean, std: in grey levels, 0 to 255: the network sees (level - mean) / std.
    padding: pictures are padded with zeros at the bottom and right to a multiple of this.
    object_level: which levels of a mask are object, see `objects`.
    keep_empty: whether pictures without an object belong to the set.
    """

    grey: Grey = "opencv"
    size: int = 256
    mean: float = 0.0
    std: float = 255.0
    padding: int = 1
    object_level: ObjectLevel = "half"
    keep_empty: bool = False


class Recipe(NamedTuple):
    """How the authors train on a data set.

    augment: with flips along both axes and a transpose, each with probability 1/2.
    crop: height and width of the random windows to train on; 0 for whole pictures.
    batch_size, epochs, learning_rate: of Adam, whose rate decays as (1 - step/total)^0.9.
    keep_last_batch: whether the last, incomplete batch of an epoch is trained on.
    look_every: steps between looks at the validation pictures, beside the one at each epoch's end.
    """

    augment: bool = True
    crop: int = 0
    batch_size: int = 8
    epochs: int = 800
    learning_rate: float = 1e-4
    keep_last_batch: bool = True
    look_every: int = 100


class DataSet(NamedTuple):
    """One data set.

    title: as it is written.
    layout: its authors' (the layout SPLIT/{images,masks} is taken too); None where any is taken.
    counts: published number of pictures in each split.  protocol: how it is evaluated.
    source: the work that it comes from, and where it is found.
    preparation, recipe: as the authors of RPCANet++ read it and train on it; tools/configs holds the same recipe.
    """

    title: str
    layout: Layout | None
    counts: dict[str, int]
    protocol: Protocol
    source: str
    preparation: Preparation = Preparation()
    recipe: Recipe = Recipe()


INFRARED = Preparation(object_level="maximum")
WITH_EMPTY = INFRARED._replace(keep_empty=True)
PLAIN = Recipe(augment=False)
WINDOWS = Recipe(crop=256, batch_size=4, epochs=400, learning_rate=5e-4)


def _vessels(mean: float, std: float) -> Preparation:
    return Preparation("pillow", 0, mean, std, 32)


PUBLISHED = {
    "sirst": DataSet(
        "SIRST",
        LISTED,
        {"trainval": 341, "test": 86},
        "overlap",
        "Dai et al., Asymmetric Contextual Modulation, WACV 2021; GitHub: YimianDai/sirst",
        INFRARED,
    ),
    "nudt_sirst": DataSet(
        "NUDT-SIRST",
        LISTED,
        {"trainval": 663, "test": 664},
        "overlap",
        "Li et al., Dense Nested Attention Network, TIP 2023; "
        "GitHub: YeRen123455/Infrared-Small-Target-Detection",
        INFRARED,
        PLAIN,
    ),
    "irstd_1k": DataSet(
        "IRSTD-1k",
        IRSTD_1K,
        {"trainval": 800, "test": 201},
        "overlap",
        "Zhang et al., ISNet, CVPR 2022; GitHub: RuiZhang97/ISNet",
        INFRARED,
        PLAIN,
    ),
    "sirst_aug": DataSet(
        "SIRST-Aug",
        SPLIT_FOLDERS,
        {"trainval": 8525, "test": 545},
        "overlap",
        "Zhang et al., AGPCNet, 2021; GitHub: Tianfang-Zhang/AGPCNet",
        WITH_EMPTY,
        Recipe(epochs=400),
    ),
    "drive": DataSet(
        "DRIVE",
        DRIVE,
        {"train": 20, "test": 20},
        "vessel",
        "Staal et al., Ridge-based vessel segmentation, TMI 2004; the DRIVE grand challenge, on registration",
        _vessels(83.59488677978516, 54.175140380859375),
        WINDOWS,
    ),
    "stare": DataSet(
        "STARE",
        STARE,
        {"train": 16, "test": 4},
        "vessel",
        "Hoover et al., Locating blood vessels in retinal images, TMI 2000; Clemson University, the STARE project",
        _vessels(98.16558837890625, 52.33002853393555),
        WINDOWS,
    ),
    "chase_db1": DataSet(
        "CHASE_DB1",
        CHASE_DB1,
        {"train": 20, "test": 8},
        "vessel",
        "Fraz et al., An ensemble classification-based approach, TBME 2012; Kingston University research data",
        _vessels(59.87125015258789, 46.84417724609375),
        WINDOWS,
    ),
    "neu_seg": DataSet(
        "NEU-Seg",
        NEU_SEG,
        {"train": 3630, "test": 840},
        "defect",
        "Dong et al., PGA-Net, TII 2020; GitHub: DHW-Master/NEU_Seg",
        Preparation(size=200, object_level="any"),  # 200x200 is the pictures' own size
        Recipe(augment=False, epochs=200),
    ),
    "sd_saliency_900": DataSet(
        "SD-saliency-900",
        SD_SALIENCY_900,
        {"train": 720, "test": 180},
        "defect",
        "Song et al., Saliency detection for strip steel surface defects, 2020; GitHub: SongGuorong/MCITF",
        Preparation(size=200),  # likewise
        Recipe(augment=False, epochs=400),
    ),
}
# Data sets that no published row is measured on.
OTHERS = {
    "sirst_v2": DataSet(
        "SIRST-V2",
        SIRST_V2,
        {},
        "overlap",
        "Dai et al., One-Stage Cascade Refinement Networks, TGRS 2023 (1,024 pictures); "
        "GitHub: YimianDai/open-sirst-v2",
        WITH_EMPTY,
    ),
}
RECORDS = {**PUBLISHED, **OTHERS}
NAMES = ("synthetic", "folder", *RECORDS)


def record_of(name: str) -> DataSet:
    """What is known of the data set called `name`; of "folder", "synthetic" and any other name what is assumed.

    >>> record_of("drive").preparation.padding, record_of("nudt_sirst").recipe.augment
    (32, False)
    >>> record_of("folder").preparation
    Preparation(grey='opencv', size=256, mean=0.0, std=255.0, padding=1, object_level='half', keep_empty=False)
    """
    return RECORDS.get(name) or DataSet(name, None, {}, "overlap", "", recipe=Recipe(look_every=0))


def protocol_of(name: str) -> Protocol:
    """The evaluation protocol that the literature uses for a data set; "overlap" for others."""
    return record_of(name).protocol


def padding_of(protocol: str) -> int:
    """The multiple that pictures are padded to for an evaluation protocol, as on its published data sets.

    >>> padding_of("vessel"), padding_of("centroid")
    (32, 1)
    """
    return max((x.preparation.padding for x in RECORDS.values() if x.protocol == protocol), default=1)
