"""Pairs of picture and mask files: how each published layout names them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from datasets.picture import ENDINGS, Picture, read_picture


class Pair(NamedTuple):
    """Where a picture and its mask lie."""

    image: Path
    mask: Path
    name: str


class PictureFiles:
    """The pictures of `pairs`, read from their files when asked for."""

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Picture:
        return read_picture(*self.pairs[index])


def sirst_pairs(root: Path, split: str) -> list[Pair]:
    """SIRST as its authors publish it.

    `images/NAME.png`, `masks/NAME_pixels0.png`, and the names of a split in `idx_427/SPLIT.txt`
    (trainval 341, train 256, val 85, test 86).
    """
    names = read_names(root / "idx_427" / f"{split}.txt")
    pairs = [Pair(root / f"images/{n}.png", root / f"masks/{n}_pixels0.png", n) for n in names]
    for path in (path for pair in pairs for path in (pair.image, pair.mask) if not path.is_file()):
        raise FileNotFoundError(f"{path}: no such file, which idx_427/{split}.txt asks for")
    return pairs


def folder_pairs(root: Path, split: str) -> list[Pair]:
    """Any folder of pictures and masks whose names agree up to the ending.

    Either `SPLIT/images` and `SPLIT/masks`, or `images` and `masks` with a list of names in `SPLIT.txt`.
    """
    if (root / split).is_dir():
        return matched(root / split / "images", root / split / "masks")
    if not (root / "images").is_dir():
        raise FileNotFoundError(
            f"{root}: expected {split}/images and {split}/masks, or images, masks and {split}.txt, "
            "found neither"
        )
    pairs = {pair.name: pair for pair in matched(root / "images", root / "masks")}
    names = read_names(root / f"{split}.txt")
    for name in names:
        if name not in pairs:
            raise FileNotFoundError(f"{root / 'images'}: no picture {name!r}, which {split}.txt names")
    return [pairs[name] for name in names]


def read_names(path: Path) -> list[str]:
    """The names in a split file, one a line; raises where it is missing, empty, or names one twice."""
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.txt"))
        raise FileNotFoundError(
            f"{path}: no such split file; splits found there: {', '.join(there) or 'none'}"
        )
    names = path.read_text(encoding="utf-8").split("\n")
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise ValueError(f"{path}: the split is empty; expected one name a line")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{path}: {twice!r} is named twice")
    return names


def matched(images: Path, masks: Path) -> list[Pair]:
    """The pairs of equal stem in two folders, by name; raises where either side has no partner."""
    image_of, mask_of = pictures_by_stem(images), pictures_by_stem(masks)
    for stem in sorted(image_of.keys() - mask_of.keys()):
        raise FileNotFoundError(f"{image_of[stem]}: no mask of that name in {masks}")
    for stem in sorted(mask_of.keys() - image_of.keys()):
        raise FileNotFoundError(f"{mask_of[stem]}: no image of that name in {images}")
    return [Pair(image_of[stem], mask_of[stem], stem) for stem in sorted(image_of)]


def pictures_by_stem(folder: Path) -> dict[str, Path]:
    """The picture files of a folder by their names without ending."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected pictures in it")
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS):
        if path.stem in found:
            raise ValueError(f"{path}: a second picture named {path.stem!r} beside {found[path.stem].name}")
        found[path.stem] = path
    if not found:
        raise ValueError(f"{folder}: no pictures; expected files ending in {', '.join(ENDINGS)}")
    return found
