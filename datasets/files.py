"""Pairs of picture and mask files, and what is wrong with them."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from .picture import ENDINGS, Grey, Picture, is_picture, read_picture, stem


class Pair(NamedTuple):
    """Where a picture and its mask lie; `fault` says what is missing of them."""

    image: Path
    mask: Path
    name: str
    fault: str = ""


class PictureFiles:
    """The pictures of `pairs`, read from their files when asked for.

    A pair with a fault, a file that cannot be read, a mask in other proportions than its picture and, unless
    `keep_empty`, a mask without any object raise FileNotFoundError or ValueError, which name the file.
    """

    def __init__(self, pairs: Sequence[Pair], keep_empty: bool = False, grey: Grey = "opencv") -> None:
        self.pairs, self.keep_empty, self.grey = pairs, keep_empty, grey
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Picture:
        image, mask, name, fault = self.pairs[index]
        if fault:
            raise FileNotFoundError(fault)
        picture = read_picture(image, mask, name, self.grey)
        if not self.keep_empty and not picture.mask.any():
            raise ValueError(
                f"{mask}: the mask is empty; expected an object in it (keep_empty takes it as it is, "
                "skip_bad leaves it out)"
            )
        return picture

    def without_bad(self) -> "PictureFiles":
        """The pictures that can be used, each read once to know; `skipped` says what is wrong with the others.

        Raises ValueError where none can be used.
        """
        faults = [self._fault(index) for index in range(len(self))]
        good = [pair for pair, fault in zip(self.pairs, faults, strict=True) if not fault]
        files = PictureFiles(good, self.keep_empty, self.grey)
        files.skipped = [fault for fault in faults if fault]
        if not good:
            raise ValueError(f"none of {len(self)} pictures can be used; the first: {files.skipped[0]}")
        return files

    def _fault(self, index: int) -> str:
        try:
            self[index]
        except (FileNotFoundError, ValueError) as error:
            return str(error)
        return ""


def outside(path: Path, root: Path) -> bool:
    """Whether `path` in `root` is a link, or below one, that leads out of it."""
    return not path.resolve().is_relative_to(root.resolve())


def matched(images: Path, masks: Path, key: Callable[[str], str] = str) -> list[Pair]:
    """The pairs of two folders whose `key` of the stem is equal, by key.

    Raises where a folder holds no pictures; a picture or mask without a partner becomes a pair with a fault.
    """
    image_of, mask_of = pictures_by_stem(images, key), pictures_by_stem(masks, key)

    def pair(name: str) -> Pair:
        image, mask = image_of.get(name, images / name), mask_of.get(name, masks / name)
        if name not in mask_of:
            return Pair(image, mask, name, f"{image}: no mask of that name in {masks}")
        if name not in image_of:
            return Pair(image, mask, name, f"{mask}: no image of that name in {images}")
        return Pair(image, mask, stem(image))

    return [pair(name) for name in [*sorted(image_of), *sorted(mask_of.keys() - image_of.keys())]]


def pictures_by_stem(folder: Path, key: Callable[[str], str] = str) -> dict[str, Path]:
    """The picture files of a folder by the `key` of their names without ending; raises where there are none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected pictures in it")
    found = by_stem(folder.iterdir(), key)
    if not found:
        raise ValueError(f"{folder}: no pictures; expected files ending in {', '.join(ENDINGS)}")
    return found


def by_stem(paths: Iterable[Path], key: Callable[[str], str] = str) -> dict[str, Path]:
    """The picture files among `paths` by the `key` of their stems; raises ValueError where two share one."""
    found: dict[str, Path] = {}
    for path in sorted(filter(is_picture, paths)):
        name = key(stem(path))
        if name in found:
            raise ValueError(f"{path}: a second picture named {name!r} beside {found[name].name}")
        found[name] = path
    return found


def read_names(path: Path) -> list[str]:
    """The names that a file lists, one a line; raises where it is missing, empty, or names one twice."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one name a line")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected names in UTF-8, one a line ({error})") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    names = [stem(Path(line)) if is_picture(Path(line)) else line for line in lines]
    if not names:
        raise ValueError(f"{path}: the split is empty; expected one name a line")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{path}: {name!r} is named twice")
        seen.add(name)
    return names
