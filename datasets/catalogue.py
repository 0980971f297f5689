"""The data sets by name: what each holds, how it is recognised, and how it is evaluated."""

from pathlib import Path
from typing import Literal, NamedTuple

from .files import Pair, PictureFiles, outside
from .layouts import (
    CHASE_DB1,
    DRIVE,
    LAYOUTS,
    LISTED,
    NEU_SEG,
    SD_SALIENCY_900,
    SPLIT_FOLDERS,
    STARE,
    Layout,
)
from .preparation import Pictures
from .synthetic import SyntheticScenes

Protocol = Literal["overlap", "vessel", "defect"]


class DataSet(NamedTuple):
    """A published data set.

    title: as it is written.  layout: its authors' (the layout SPLIT/{images,masks} is taken too).
    counts: published number of pictures in each split.  protocol: how it is evaluated.
    source: the work that it comes from, and where it is found.
    """

    title: str
    layout: Layout
    counts: dict[str, int]
    protocol: Protocol
    source: str


PUBLISHED = {
    "sirst": DataSet(
        "SIRST",
        LISTED,
        {"trainval": 341, "test": 86},
        "overlap",
        "Dai et al., Asymmetric Contextual Modulation, WACV 2021; GitHub: YimianDai/sirst",
    ),
    "nudt_sirst": DataSet(
        "NUDT-SIRST",
        LISTED,
        {"trainval": 663, "test": 664},
        "overlap",
        "Li et al., Dense Nested Attention Network, TIP 2023; "
        "GitHub: YeRen123455/Infrared-Small-Target-Detection",
    ),
    "irstd_1k": DataSet(
        "IRSTD-1k",
        LISTED,
        {"trainval": 800, "test": 201},
        "overlap",
        "Zhang et al., ISNet, CVPR 2022; GitHub: RuiZhang97/ISNet",
    ),
    "sirst_aug": DataSet(
        "SIRST-Aug",
        SPLIT_FOLDERS,
        {"trainval": 8525, "test": 545},
        "overlap",
        "Zhang et al., AGPCNet, 2021; GitHub: Tianfang-Zhang/AGPCNet",
    ),
    "drive": DataSet(
        "DRIVE",
        DRIVE,
        {"train": 20, "test": 20},
        "vessel",
        "Staal et al., Ridge-based vessel segmentation, TMI 2004; the DRIVE grand challenge, on registration",
    ),
    "stare": DataSet(
        "STARE",
        STARE,
        {"train": 16, "test": 4},
        "vessel",
        "Hoover et al., Locating blood vessels in retinal images, TMI 2000; Clemson University, the STARE project",
    ),
    "chase_db1": DataSet(
        "CHASE_DB1",
        CHASE_DB1,
        {"train": 20, "test": 8},
        "vessel",
        "Fraz et al., An ensemble classification-based approach, TBME 2012; Kingston University research data",
    ),
    "neu_seg": DataSet(
        "NEU-Seg",
        NEU_SEG,
        {"train": 3630, "test": 840},
        "defect",
        "Dong et al., PGA-Net, TII 2020; GitHub: DHW-Master/NEU_Seg",
    ),
    "sd_saliency_900": DataSet(
        "SD-saliency-900",
        SD_SALIENCY_900,
        {"train": 720, "test": 180},
        "defect",
        "Song et al., Saliency detection for strip steel surface defects, 2020; GitHub: SongGuorong/MCITF",
    ),
}
NAMES = ("synthetic", "folder", *PUBLISHED)
SYNTHETIC_COUNTS = {"train": 400, "val": 40, "test": 80}


def open_pictures(
    name: str,
    split: str,
    root: str | Path | None = None,
    *,
    count: int | None = None,
    size: int = 128,
    seed: int = 42,
    skip_bad: bool = False,
    keep_empty: bool = False,
) -> Pictures:
    """The pictures of a split of the data set called `name`.

    name: one of `PUBLISHED`, in its authors' layout or as SPLIT/{images,masks}; "folder" (any of these layouts,
    recognised on sight); or "synthetic" (generated, no root).
    split: as the layout names it, for instance train, val, test. A data set without a validation split has the
    same pictures in train and trainval.
    root: the data set's folder.
    count, size, seed: of the generated scenes only; by default 400, 40 and 80 scenes in train, val and test.
    skip_bad: leave out what cannot be used, and say in `skipped` what it was; every picture is then read once.
    keep_empty: take pictures whose mask holds no object.

    Raises ValueError for an unknown name or an empty split, FileNotFoundError for what is missing on disk;
    the message names the file or folder and what was expected.

    >>> len(open_pictures("synthetic", "test"))
    80
    """
    if name == "synthetic":
        return SyntheticScenes(split, count or SYNTHETIC_COUNTS.get(split, 1), size, seed)
    files = PictureFiles(find_pairs(name, split, root), keep_empty)
    if skip_bad:
        return files.without_bad()
    for pair in files.pairs:
        if pair.fault:
            raise FileNotFoundError(pair.fault)
    return files


def find_pairs(name: str, split: str, root: str | Path | None) -> list[Pair]:
    """The files of a split of a data set on disk; pairs that miss a file say so in their `fault`."""
    if name not in NAMES or name == "synthetic":
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    if root is None:
        raise ValueError(f"root is missing: the data set {name!r} is read from a folder")
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root}: no such folder; expected the root of the data set {name!r}")
    pairs = layout_of(name, Path(root)).pairs(Path(root), split)
    return [_within(Path(root), pair) for pair in pairs]


def _within(root: Path, pair: Pair) -> Pair:
    """The pair, with a fault where one of its files is a link that leads out of the data set."""
    leaving = [path for path in (pair.image, pair.mask) if outside(path, root)]
    if pair.fault or not leaving:
        return pair
    return pair._replace(fault=f"{leaving[0]}: a link out of {root}; expected the file itself")


def layout_of(name: str, root: Path) -> Layout:
    """The layout in which the data set lies in `root`; raises FileNotFoundError where it is none it may have."""
    layouts = LAYOUTS if name == "folder" else (PUBLISHED[name].layout, LISTED, SPLIT_FOLDERS)
    seen = next((layout for layout in LAYOUTS if layout.found(root)), None)
    if seen is None or seen not in layouts:
        found = seen.expected if seen else ", ".join(sorted(p.name for p in root.iterdir())[:5]) or "nothing"
        expected = " or ".join(dict.fromkeys(layout.expected for layout in layouts))
        raise FileNotFoundError(f"{root}: expected {expected}; found {found}")
    return seen


def protocol_of(name: str) -> Protocol:
    """The evaluation protocol that the literature uses for a data set; "overlap" for others."""
    return PUBLISHED[name].protocol if name in PUBLISHED else "overlap"
