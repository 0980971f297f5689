"""The data sets by name."""

from collections.abc import Callable
from pathlib import Path

from datasets.files import Pair, PictureFiles, folder_pairs, sirst_pairs
from datasets.preparation import Pictures
from datasets.synthetic import SyntheticScenes

ON_DISK: dict[str, Callable[[Path, str], list[Pair]]] = {"sirst": sirst_pairs, "folder": folder_pairs}
NAMES = ("synthetic", *ON_DISK)
SYNTHETIC_COUNTS = {"train": 400, "val": 40, "test": 80}


def open_pictures(
    name: str,
    split: str,
    root: str | Path | None = None,
    *,
    count: int | None = None,
    size: int = 128,
    seed: int = 42,
) -> Pictures:
    """The pictures of a split of the data set called `name`.

    name: "sirst" (published layout), "folder" (see `folder_pairs`), or "synthetic" (generated, no root).
    split: as the layout names it, for instance train, trainval, val, test.
    root: the data set's folder.
    count, size, seed: of the generated scenes only; by default 400, 40 and 80 scenes in train, val and test.

    Raises ValueError for an unknown name or an empty split, FileNotFoundError for what is missing on disk;
    the message names the file or folder and what was expected.

    >>> len(open_pictures("synthetic", "test"))
    80
    """
    if name == "synthetic":
        return SyntheticScenes(split, count or SYNTHETIC_COUNTS.get(split, 1), size, seed)
    if name not in ON_DISK:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    if root is None:
        raise ValueError(f"root is missing: the data set {name!r} is read from a folder")
    if not Path(root).is_dir():
        raise FileNotFoundError(f"{root}: no such folder; expected the root of the data set {name!r}")
    return PictureFiles(ON_DISK[name](Path(root), split))
