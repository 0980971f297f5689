"""Masks and probability maps that others saved: which file is which picture's, and what stands for 1."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from scipy.io import loadmat

ENDINGS = (".png", ".tif", ".tiff", ".bmp", ".pgm", ".jpg", ".jpeg", ".gif", ".mat", ".npy")
# What may follow a picture's name, of two complete sets the first is read.
SUFFIXES = ("", "_probability", "_prob", "_prediction", "_pred", "_mask", "_pixels0")
SCALES = (1.0, 255.0, 65535.0)  # what may stand for 1


class Levels(NamedTuple):
    """What one file holds.

    kind: its dtype, "float" for all of these.  high: its largest level.  two: whether it holds but 0 and that.
    """

    path: Path
    kind: str
    high: float
    two: bool


def matched(folder: Path, names: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """The file of each picture's prediction in `folder` or below, by name, and what was assumed.

    A file is called as its picture, with one of `SUFFIXES` and `ENDINGS`; a picture's folders (seq1/000) count
    where the folder has them too. Raises FileNotFoundError where one is missing, ValueError where two would do.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one prediction for each picture")
    files = _by_name(folder)
    sets = {suffix: _found(files, names, suffix) for suffix in SUFFIXES}
    complete = [suffix for suffix in SUFFIXES if len(sets[suffix]) == len(names)]
    if not complete:
        best = max(SUFFIXES, key=lambda suffix: len(sets[suffix]))
        missing = next(name for name in names if name not in sets[best])
        raise FileNotFoundError(
            f"{folder}: no prediction called {missing}{best} ({len(sets[best])} of {len(names)} pictures have one)"
            f"; expected NAME with {', '.join(SUFFIXES[1:])} or nothing after it, ending in {', '.join(ENDINGS)}"
        )
    if complete[0] == "" and len(complete) > 1:
        both = ", ".join(str(sets[suffix][names[0]]) for suffix in complete)
        raise ValueError(f"{folder}: which are the predictions? each picture has {both}; keep one of them")
    chosen = sets[complete[0]]
    said = [f"predictions are the files NAME{complete[0]}"]
    said += [f"NAME{suffix}, which are there too, are not read" for suffix in complete[1:]]
    return chosen, said


def _by_name(folder: Path) -> dict[str, list[Path]]:
    """Files by their path without ending, in small letters, and by their name alone where that differs."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.name.startswith(".") or path.suffix.lower() not in ENDINGS or not path.is_file():
            continue
        whole = path.relative_to(folder).with_suffix("").as_posix().lower()
        for key in {whole, whole.rpartition("/")[2]}:
            found.setdefault(key, []).append(path)
    return found


def _found(files: dict[str, list[Path]], names: Sequence[str], suffix: str) -> dict[str, Path]:
    found = {}
    for name in names:
        key = f"{name}{suffix}".lower()
        paths = files.get(key) or files.get(key.rpartition("/")[2]) or []
        if len(paths) > 1:
            raise ValueError(f"{paths[1]}: a second prediction of the picture {name!r} beside {paths[0]}")
        if paths:
            found[name] = paths[0]
    taken: dict[Path, str] = {}
    for name, path in found.items():
        if path in taken:
            raise ValueError(
                f"{path}: the prediction of both {taken[path]!r} and {name!r}; expected one of each"
            )
        taken[path] = name
    return found


def read_map(path: Path) -> np.ndarray:
    """The one plane of levels in a file, (height, width), as stored.

    Raises ValueError where the file cannot be read, holds several planes or none, colours, NaN, infinity or levels
    below 0; the message names it.
    """
    levels = READERS.get(path.suffix.lower(), _picture)(path)
    if levels.ndim == 3 and levels.shape[2] in (3, 4) and (levels[..., :3] == levels[..., :1]).all():
        levels = levels[..., 0]
    levels = levels.squeeze(tuple(k for k in range(levels.ndim - 2) if levels.shape[k] == 1))
    if levels.ndim == 3 and levels.shape[2] == 1:
        levels = levels[..., 0]
    if levels.ndim != 2 or levels.size == 0:
        raise ValueError(
            f"{path}: expected one grey plane, found shape {levels.shape} (colours that differ?)"
        )
    if levels.dtype.kind not in "biuf":
        raise ValueError(f"{path}: expected real numbers, found {levels.dtype}")
    if not np.isfinite(levels).all() or levels.min() < 0:
        raise ValueError(
            f"{path}: expected levels of at least 0, found {levels.min():g}; of logits take the sigmoid first"
        )
    return levels.astype(np.uint8) if levels.dtype == bool else levels


def _picture(path: Path) -> np.ndarray:
    try:
        read, pages = cv2.imdecodemulti(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        read, pages = False, ()
    if not read or not pages:
        raise ValueError(f"{path}: not a readable picture")
    if len(pages) > 1:
        raise ValueError(f"{path}: expected one picture, found {len(pages)} pages")
    return pages[0]


def _numpy(path: Path) -> np.ndarray:
    try:
        levels = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError) as error:
        raise ValueError(f"{path}: not a readable array of numbers ({error})") from None
    if not isinstance(levels, np.ndarray):
        raise ValueError(f"{path}: expected one array")
    return levels


def _matlab(path: Path) -> np.ndarray:
    try:
        variables = loadmat(path)
    except NotImplementedError:
        raise ValueError(f"{path}: a MATLAB file of version 7.3; save it with -v7 or as PNG") from None
    except Exception as error:  # damaged files raise anything
        raise ValueError(f"{path}: not a readable MATLAB file ({error})") from None
    planes = {
        name: value
        for name, value in variables.items()
        if not name.startswith("__") and isinstance(value, np.ndarray) and min(value.shape, default=0) > 1
    }
    if len(planes) != 1:
        raise ValueError(f"{path}: expected one matrix, found {', '.join(planes) or 'none'}")
    return next(iter(planes.values()))


READERS = {".npy": _numpy, ".mat": _matlab}


def summarised(path: Path) -> Levels:
    levels = read_map(path)
    high = levels.max().item()
    kind = "float" if levels.dtype.kind == "f" else str(levels.dtype)
    return Levels(path, kind, high, bool(((levels == 0) | (levels == high)).all()))


def recognised_scale(files: Iterable[Levels], scale: float | None = None) -> tuple[float, str]:
    """What stands for probability 1 in a folder of maps, and that in words.

    1, 255 or 65535: the one whose upper half holds the largest level of all files. So masks of 0 and 1 and of 0
    and 255, probabilities, and levels of 8 and 16 bits are told apart, in whichever type they are stored. `scale`
    states it instead.

    Raises ValueError where the files differ in type, where no such scale fits (classes 0..3, percent,
    probabilities of which none exceeds a half stored as levels, probabilities a little above 1), and where some
    are of one scale and some of another.
    """
    files = list(files)
    first, highest = files[0], max(files, key=lambda x: x.high)
    other = next((x for x in files if x.kind != first.kind), None)
    if other is not None:
        raise ValueError(
            f"{other.path}: holds {other.kind}, {first.path} {first.kind}; expected one type in a folder"
        )
    if scale is not None:
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive, got {scale}")
        if not highest.high <= scale:
            raise ValueError(f"{highest.path}: holds {highest.high:g}, above the scale {scale:g}")
        return scale, f"levels 0 to {scale:g} are probabilities 0 to 1, as stated"
    found = next((s for s in SCALES if (s / 2 if s > 1 else 0) < highest.high <= s), None)
    if highest.high == 0:
        return 1.0, "the predictions are empty, all of them"
    if found is None:
        raise ValueError(
            f"{highest.path}: the largest level of the folder is {highest.high:g}, from which a range of 0 to 1, "
            "255 or 65535 cannot be told; state what stands for probability 1 (scale)"
        )
    _require_one_scale(files, highest, found)
    if all(x.two for x in files):
        return found, f"the predictions are masks, of 0 and {highest.high:g}"
    return found, f"the predictions are probabilities, levels 0 to {found:g} for 0 to 1"


def _require_one_scale(files: list[Levels], highest: Levels, scale: float) -> None:
    masks = all(x.two for x in files)
    for x in files:
        another = (masks and 0 < x.high != highest.high) or (x.kind == "float" and 0 < x.high <= 1 < scale)
        if another:
            raise ValueError(
                f"{x.path}: its largest level is {x.high:g}, of {highest.path} {highest.high:g}; expected one "
                "range in a folder, or state what stands for probability 1 (scale)"
            )
