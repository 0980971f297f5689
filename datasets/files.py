"""Pairs of picture and mask files, and what is wrong with them."""

import codecs
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .reading.decoding import ENDINGS
from .reading.levels import Levels
from .reading.masks import ObjectLevel, classes, objects
from .reading.picture import (
    ENDING,
    Grey,
    Picture,
    is_picture,
    is_transparent,
    read_graded,
    read_labels,
    read_levels,
    stem,
    with_mask,
)

MASK_ENDING = re.compile(r"[_-](mask|masks|gt|label|labels|seg|pixels0)$", re.IGNORECASE)


class Pair(NamedTuple):
    """Where a picture and its mask lie; `fault` says what is missing of them."""

    image: Path
    mask: Path
    name: str
    fault: str = ""


class PictureFiles:
    """The pictures of `pairs`, read from their files when asked for, with `grey` and `levels` as `read_image` has.

    A pair with a fault, a file that cannot be read, a mask in other proportions than its picture and, unless
    `keep_empty`, a mask without any object raise FileNotFoundError or ValueError, which name the file; unless
    `allow_suspect_masks`, so does a mask that is transparent, full or of classes (`suspicion`).

    `chosen` holds, of the pictures read so far that were not taken over the full range of their type, which of
    their levels became 0 and 255, and how these were chosen (low, high, levels; see `Graded`); `suspect` what is
    suspicious of the masks read so far that were taken as they are, `shares` how much of each is object.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        keep_empty: bool = False,
        grey: Grey = "opencv",
        levels: Levels | None = None,
        allow_suspect_masks: bool = True,
        object_level: ObjectLevel = "half",
    ) -> None:
        self.pairs, self.keep_empty, self.grey, self.levels = pairs, keep_empty, grey, levels
        self.allow_suspect_masks, self.object_level = allow_suspect_masks, object_level
        self.skipped: list[str] = []
        self.chosen: dict[str, tuple[float, float, str]] = {}
        self.suspect: dict[str, str] = {}
        self.shares: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Picture:
        image, mask, name, fault = self.pairs[index]
        if fault:
            raise FileNotFoundError(fault)
        graded = read_graded(image, self.grey, self.levels)
        if graded.levels != "full":
            self.chosen[name] = graded[1:]
        picture = with_mask(graded.image, mask, name)
        if name not in self.shares:
            self._judge(mask, picture)
        if not self.keep_empty and not picture.mask.any():
            raise ValueError(
                f"{mask}: the mask is empty; expected an object in it (keep_empty takes it as it is, "
                "skip_bad leaves it out)"
            )
        return picture

    def _judge(self, path: Path, picture: Picture) -> None:
        """Note once what a mask is like; raises ValueError where it is suspect and not allowed to be."""
        said = suspicion(path, picture.mask, self.object_level)
        if said and not self.allow_suspect_masks:
            raise ValueError(f"{path}: {said} (allow_suspect_masks takes it as it is)")
        if said:
            self.suspect[picture.name] = f"{path}: {said}"
        self.shares[picture.name] = float(objects(picture.mask, self.object_level).mean())

    def without_bad(self) -> "PictureFiles":
        """The pictures that can be used, each read once to know; `skipped` says what is wrong with the others.

        Raises ValueError where none can be used.
        """
        faults = [self._fault(index) for index in range(len(self))]
        good = [pair for pair, fault in zip(self.pairs, faults, strict=True) if not fault]
        options = (self.keep_empty, self.grey, self.levels, self.allow_suspect_masks, self.object_level)
        files = PictureFiles(good, *options)
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


def suspicion(path: Path, labels: np.ndarray, object_level: ObjectLevel) -> str:
    """Why a mask can hardly be meant as it is, else nothing.

    It is transparent, has an object everywhere, or numbers classes in a data set that knows none.
    """
    if is_transparent(path):
        return "the mask is transparent; expected an object brighter than what surrounds it, without transparency"
    if objects(labels, object_level).all():
        return "the mask is full; expected an object and what surrounds it"
    of_shares = labels.dtype != np.uint8  # several levels, see `labels_of`
    if of_shares and object_level != "any" and (found := classes(read_levels(path))):
        return (
            f"the mask is of classes {', '.join(map(str, found))}; expected 0 and one level for every object"
        )
    return ""


def taken_as_they_are(files: PictureFiles) -> list[str]:
    """What to say of the masks read so far that can hardly be meant as they are, a sentence each kind."""
    rule = {"maximum": "their largest", "half": "above half of their largest", "any": "above 0"}[
        files.object_level
    ]
    said = [inverted(files.pairs[0].mask.parent, list(files.shares.values()))]
    if files.suspect:
        first, many = next(iter(files.suspect.values())), len(files.suspect)
        said.append(f"of {many} suspect masks what is {rule} is taken as object; the first, {first}")
    return [sentence for sentence in said if sentence]


def inverted(masks: Path, shares: Sequence[float]) -> str:
    """What to say of a folder of masks where most have an object on over half of their pixels; else nothing."""
    covered = sum(share > 0.5 for share in shares)
    if 2 * covered <= len(shares):
        return ""
    return (
        f"{masks}: the masks look inverted, {covered} of {len(shares)} have objects on over half of their pixels; "
        "expected objects brighter than what surrounds them"
    )


def object_shares(pairs: Sequence[Pair], most: int = 100) -> list[float]:
    """The share of object pixels of `most` masks, evenly spaced; those that cannot be read are left out."""
    shares: list[float] = []
    for pair in pairs[:: -(-len(pairs) // most) or 1]:
        with suppress(FileNotFoundError, ValueError):
            shares.append(float(objects(read_labels(pair.mask)).mean()))
    return shares


def outside(path: Path, root: Path) -> bool:
    """Whether `path` in `root` is a link, or below one, that leads out of it."""
    real = os.path.realpath(path)  # Path.resolve raises at a link to itself
    return not Path(real).is_relative_to(root.resolve())


def misleading(link: Path, root: Path) -> str:
    """What is wrong with a link that leads out of `root`, or to a folder that it lies in."""
    where = f"out of {root}" if outside(link, root) else "to a folder that it lies in"
    return f"{link}: a link {where}; expected the {'folder' if link.is_dir() else 'file'} itself"


def matched(images: Path, masks: Path, root: Path, key: Callable[[str], str] = str) -> list[Pair]:
    """The pairs of two folders of the data set in `root` whose `key` of the name is equal, by key.

    A mask may be called after its picture with an ending of MASK_ENDING. Raises where a folder holds no pictures;
    a picture or mask without a partner, and a linked folder that is not followed, become pairs with a fault.
    """
    image_of = pictures_in(images, root, key)
    mask_of = called_after(pictures_in(masks, root, key), image_of)

    def pair(name: str) -> Pair:
        image, mask = image_of.get(name, images / name), mask_of.get(name, masks / name)
        if name.endswith("/"):
            return Pair(image, mask, name, misleading(image if name in image_of else mask, root))
        if name not in mask_of:
            return Pair(image, mask, name, f"{image}: no mask of that name in {masks}")
        if name not in image_of:
            return Pair(image, mask, name, f"{mask}: no image of that name in {images}")
        return Pair(image, mask, without_ending(image.relative_to(images).as_posix()))

    return [pair(name) for name in [*sorted(image_of), *sorted(mask_of.keys() - image_of.keys())]]


def pictures_in(folder: Path, root: Path, key: Callable[[str], str] = str) -> dict[str, Path]:
    """The picture files of a folder and those below by the `key` of their names: seq1/000 for seq1/000.png.

    Linked folders that `visible` does not follow in the data set's `root` are there too, as NAME/.

    Raises FileNotFoundError where there is no such folder, ValueError where it holds none, or two of one name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected pictures in it")
    there = list(visible(folder, root))
    links = [path for path in there if path.is_dir()]

    def name_of(path: Path) -> str:
        return key(without_ending(path.relative_to(folder).as_posix()))

    found = by_name([path for path in there if path not in links], name_of)
    found |= {f"{name_of(link)}/": link for link in links}
    if not found:
        raise ValueError(f"{folder}: no pictures; expected files ending in {', '.join(ENDINGS)}")
    return found


def visible(folder: Path, root: Path | None = None) -> Iterator[Path]:
    """The files of a folder and of those below, in order; without hidden ones and what archives of macOS add.

    Linked folders are followed where they lead to one in `root`; without it none is. Of one that leads out of it,
    or to a folder that it lies in, the link itself is given.
    """
    yield from _visible(folder, root, ())


def _visible(folder: Path, root: Path | None, above: tuple[Path, ...]) -> Iterator[Path]:
    """As `visible`, below the real folders `above`."""
    above = (*above, folder.resolve())
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "__MACOSX":
            continue
        if path.is_dir() and (not path.is_symlink() or _follows(path, root, above)):
            yield from _visible(path, root, above)
        else:
            yield path


def _follows(link: Path, root: Path | None, above: tuple[Path, ...]) -> bool:
    """Whether a linked folder leads to one in `root` that holds none of those `above` the link."""
    within = root is not None and not outside(link, root)
    return within and not any(folder.is_relative_to(link.resolve()) for folder in above)


def by_name(paths: Iterable[Path], name_of: Callable[[Path], str] = stem) -> dict[str, Path]:
    """The picture files among `paths` by name; raises ValueError where two share one."""
    found: dict[str, Path] = {}
    for path in sorted(filter(is_picture, paths)):
        name = name_of(path)
        if name in found:
            raise ValueError(f"{path}: a second picture named {name!r} beside {found[name].name}")
        found[name] = path
    return found


def called_after(masks: dict[str, Path], images: Iterable[str]) -> dict[str, Path]:
    """Masks by the names of their pictures: NAME_mask, NAME_GT, NAME_pixels0 become NAME where there is a NAME.

    Raises ValueError where two masks are called after one picture.
    """
    there, found = set(images), dict[str, Path]()
    for name, path in masks.items():
        short = MASK_ENDING.sub("", name)
        name = name if name in there or short not in there else short
        if name in found:
            raise ValueError(f"{path}: a second mask for the picture {name!r} beside {found[name].name}")
        found[name] = path
    return found


def without_ending(name: str) -> str:
    """A picture's name without its ending, with its folders; any other name as it is."""
    return ENDING.sub("", name)


def read_names(path: Path) -> list[str]:
    """The names that a file lists, one a line, without endings, with / between folders.

    UTF-8, or UTF-16 with its byte-order mark. Raises where it is missing, empty, or names one twice.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected one name a line")
    content = path.read_bytes()
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected names in UTF-8, one a line ({error})") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    names = [without_ending(line.replace("\\", "/")) for line in lines]
    if not names:
        raise ValueError(f"{path}: the split is empty; expected one name a line")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{path}: {name!r} is named twice")
        seen.add(name)
    return names


def find_name(listed: str, names: Collection[str]) -> str | None:
    """Which of `names` a list means by `listed`, a name or a path, its own or another computer's; None if none.

    >>> find_name("D:/data/images/a", ["a", "b"]), find_name("seq1/000", ["seq1/000", "seq2/000"])
    ('a', 'seq1/000')
    >>> find_name("b", ["left/b"]), find_name("000", ["seq1/000", "seq2/000"])
    ('left/b', None)
    """
    parts = listed.split("/")
    for start in range(len(parts)):
        tail = "/".join(parts[start:])
        if tail in names:
            return tail
    longer = [name for name in names if name.endswith(f"/{listed}")]
    return longer[0] if len(longer) == 1 else None
