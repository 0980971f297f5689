"""Pictures and masks as they come from files, and as the networks take them."""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import cv2
import numpy as np
from torch import Tensor

from ..names import Grey
from .decoding import COLOUR, ENDINGS, GREY, count_pages, decode, decode_pages
from .levels import Graded, Levels, PictureWarning, grade, narrow
from .masks import ObjectLevel, labels_of, objects

JPEG = b"\xff\xd8\xff"  # how such a file begins
ENDING = re.compile(rf"({'|'.join(map(re.escape, ENDINGS))})(\.gz)?$", re.IGNORECASE)


class Picture(NamedTuple):
    """One picture with its mask, before any preparation.

    image: (height, width) grey levels of 0 to 255, uint8 or float32.
    mask: shares of its largest level, uint8 where these are 0 and 1 alone, else float32; in the image's
        proportions, mostly of its size too.
    name: the picture's name without ending; where it lies in a subfolder, with that: seq1/000.
    """

    image: np.ndarray
    mask: np.ndarray
    name: str


class Sample(NamedTuple):
    """One picture with its mask, ready for a network.

    image: (1, height, width) float32, normalised.  mask: (1, height, width) float32, 0 and 1, or between them
    where labels are soft.
    """

    image: Tensor
    mask: Tensor
    name: str


def read_image(path: str | Path, grey: Grey = "opencv", levels: Levels | None = None) -> np.ndarray:
    """Grey levels of 0 to 255 of a picture file, (height, width), uint8 or float32.

    grey: colour becomes luma (ITU-R BT.601): with "opencv" in the decoder, as OpenCV reads a picture as grey,
    which of a JPEG is the luma that it stores; with "pillow" from the decoded colours, in 16-bit fixed point, to
    the bit what Pillow's convert("L") makes.
    levels: how levels of more than 8 bits become 0 to 255, see `grade`.

    A picture is turned as its file says (EXIF). One that spans under 5 % of its range is read, and named in a
    `PictureWarning`.

    Raises FileNotFoundError where there is no such file, ValueError where it is no readable picture or holds
    several pages or frames (see `read_pages`); the message names the file.
    """
    return read_graded(path, grey, levels).image


def read_graded(path: str | Path, grey: Grey = "opencv", levels: Levels | None = None) -> Graded:
    """What `read_image` reads, and which levels of the file became 0 and 255."""
    return _graded(path, decode(Path(path), _flags(grey)), levels)


def read_pages(
    path: str | Path, grey: Grey = "opencv", levels: Levels | None = None
) -> Iterator[tuple[str, Graded]]:
    """Each page of a TIFF file and each frame of an animation with its name: STEM_0001, STEM_0002, ...

    A file that holds a single picture gives that, as STEM; otherwise as `read_graded` reads and raises.
    """
    pages = decode_pages(Path(path), _flags(grey))
    held = next(pages)
    number, name = 1, stem(Path(path))
    for page in pages:
        yield f"{name}_{number:04d}", _graded(f"{path}: page {number}", held, levels)
        held, number = page, number + 1
    if number == 1:
        yield name, _graded(path, held, levels)
    else:
        yield f"{name}_{number:04d}", _graded(f"{path}: page {number}", held, levels)


def page_names(path: Path) -> list[str]:
    """The names that `read_pages` gives, without decoding the pages of a TIFF file."""
    name, count = stem(path), count_pages(path)
    return [name] if count == 1 else [f"{name}_{number:04d}" for number in range(1, count + 1)]


def luma(colour: np.ndarray) -> np.ndarray:
    """Luma of colours (height, width, 3) in order blue, green, red, in their dtype; rounded as Pillow does."""
    if colour.dtype.kind == "f":
        return colour[..., :3] @ np.array([0.114, 0.587, 0.299], colour.dtype)
    blue, green, red = (colour[..., channel].astype(np.int64) for channel in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(colour.dtype)


def read_mask(path: str | Path, object_level: ObjectLevel = "half") -> np.ndarray:
    """A mask file as uint8, (height, width): 1 where the largest of its colours is object, see `objects`.

    Raises as `read_image` does.
    """
    return objects(read_labels(path), object_level)


def read_labels(path: str | Path) -> np.ndarray:
    """The levels of a mask file as shares of its largest, see `labels_of`; of a JPEG file what exceeds half of it.

    JPEG surrounds objects with levels that no one drew. Raises as `read_image` does.
    """
    labels = labels_of(read_levels(path))
    with Path(path).open("rb") as file:
        return objects(labels) if file.read(len(JPEG)) == JPEG else labels


def read_levels(path: str | Path) -> np.ndarray:
    """The largest colour of each pixel of a picture file as it is stored, (height, width), transparency aside."""
    levels = decode(Path(path), COLOUR)
    return levels[..., :3].max(-1) if levels.ndim == 3 else levels


def is_transparent(path: str | Path) -> bool:
    """Whether a pixel of a picture file is transparent, wholly or in part."""
    levels = decode(Path(path), cv2.IMREAD_UNCHANGED)
    return levels.ndim == 3 and levels.shape[2] == 4 and bool((levels[..., 3] < _opaque(levels)).any())


def with_mask(image: np.ndarray, mask_path: Path, name: str) -> Picture:
    """Grey levels and their mask; raises ValueError where their proportions differ by more than 2%.

    Published masks may be larger than their picture: SIRST's Misc_111 is 325x220, its mask 592x400.
    """
    mask = read_labels(mask_path)
    proportion = mask.shape[1] * image.shape[0] / (mask.shape[0] * image.shape[1])
    if not 0.98 < proportion < 1.02:
        raise ValueError(
            f"{mask_path}: expected a mask in the proportions of its picture's {size_of(image)} pixels, "
            f"found {size_of(mask)}"
        )
    return Picture(image, mask, name)


def is_picture(path: Path) -> bool:
    """Whether the name ends as a picture's does; hidden files, such as ._a.png, are none."""
    return not path.name.startswith(".") and bool(ENDING.search(path.name))


def stem(path: Path) -> str:
    """The name of a picture file without its ending: im0001.ah for im0001.ah.ppm.gz."""
    return Path(re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE)).stem


def size_of(array: np.ndarray) -> str:
    """Width and height in words."""
    return f"{array.shape[1]}x{array.shape[0]}"


def _flags(grey: Grey) -> int:
    if grey not in get_args(Grey):
        raise ValueError(f"grey must be one of {', '.join(get_args(Grey))}, got {grey!r}")
    return GREY if grey == "opencv" else COLOUR


def _graded(shown: str | Path, raw: np.ndarray, levels: Levels | None) -> Graded:
    """The grey of decoded levels; what is wrong with them is said of `shown`."""
    try:
        graded = grade(luma(raw) if raw.ndim == 3 else raw, levels)
    except ValueError as error:
        raise ValueError(f"{shown}: {error}") from None
    said = narrow(graded.image)
    if said:
        warnings.warn(f"{shown}: {said}", PictureWarning, stacklevel=3)
    return graded


def _opaque(levels: np.ndarray) -> float:
    """The level of alpha that hides what is behind."""
    return float(np.iinfo(levels.dtype).max) if levels.dtype.kind in "iu" else 1.0
