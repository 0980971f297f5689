"""The data sets by name: opened from a folder, or made up."""

from pathlib import Path

from .files import Pair, PictureFiles, inverted, misleading, object_shares, outside
from .layouts import LAYOUTS, LISTED, PARTED, SPLIT_FOLDERS, Layout
from .preparation import Pictures
from .reading.levels import Levels
from .reading.picture import Grey
from .records import NAMES, record_of
from .synthetic import SyntheticScenes

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
    grey: Grey | None = None,
    levels: Levels | None = None,
    allow_suspect_masks: bool = True,
) -> Pictures:
    """The pictures of a split of the data set called `name`.

    name: one of `RECORDS`, in its authors' layout or as SPLIT/{images,masks}; "folder" (any of these layouts,
    recognised on sight); or "synthetic" (generated, no root).
    split: as the layout names it, for instance train, val, test. A data set without a validation split has the
    same pictures in train and trainval.
    root: the data set's folder.
    count, size, seed: of the generated scenes only; by default 400, 40 and 80 scenes in train, val and test.
    skip_bad: leave out what cannot be used, and say in `skipped` what it was; every picture is then read once.
    keep_empty: take pictures whose mask holds no object; those of sets that are published with some always are.
    grey, levels: how colour and levels of more than 8 bits become grey (`read_image`); by default grey as the data
    set's record says.
    allow_suspect_masks: take masks that are transparent, full or of classes, and masks that look inverted
    altogether; train without.

    Raises ValueError for an unknown name or an empty split, FileNotFoundError for what is missing on disk;
    the message names the file or folder and what was expected.

    >>> len(open_pictures("synthetic", "test"))
    80
    """
    if name == "synthetic":
        count = SYNTHETIC_COUNTS.get(split, 1) if count is None else count
        return SyntheticScenes(split, count, size, seed)
    known = record_of(name).preparation
    grey, keep_empty = grey or known.grey, keep_empty or known.keep_empty
    pairs = find_pairs(name, split, root)
    files = PictureFiles(pairs, keep_empty, grey, levels, allow_suspect_masks, known.object_level)
    said = "" if allow_suspect_masks else inverted(files.pairs[0].mask.parent, object_shares(files.pairs))
    if said:
        raise ValueError(f"{said} (allow_suspect_masks takes them as they are)")
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
    return pair._replace(fault=misleading(leaving[0], root)) if leaving else pair


def layout_of(name: str, root: Path) -> Layout:
    """The layout in which the data set lies in `root`; raises FileNotFoundError where it is none it may have."""
    own = record_of(name).layout
    if own is not None and own.found(root):
        return own
    layouts = LAYOUTS if own is None else (own, LISTED, PARTED, SPLIT_FOLDERS)
    seen = next((layout for layout in LAYOUTS if layout.found(root)), None)
    if seen is None or seen not in layouts:
        found = seen.expected if seen else ", ".join(sorted(p.name for p in root.iterdir())[:5]) or "nothing"
        expected = " or ".join(dict.fromkeys(layout.expected for layout in layouts))
        raise FileNotFoundError(f"{root}: expected {expected}; found {found}")
    return seen
