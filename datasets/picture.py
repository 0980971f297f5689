"""Pictures and masks as they come from files, and as the networks take them."""

import gzip
import zlib
from pathlib import Path
from typing import NamedTuple, get_args

import cv2
import numpy as np
from torch import Tensor

from .masks import ObjectLevel, labels_of, objects
from .names import Grey

cv2.utils.logging.setLogLevel(0)  # what cannot be read is said in an error, once

MOST_BYTES = 2**30  # of a picture file, before and after decompression
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")


class Picture(NamedTuple):
    """One picture with its mask, before any preparation.

    image: (height, width) grey levels of 0 to 255, uint8, or float32 where the file held more than 8 bits.
    mask: shares of its largest level, uint8 where these are 0 and 1 alone, else float32; in the image's
        proportions, mostly of its size too.
    name: the picture's name without ending.
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


def read_image(path: str | Path, grey: Grey = "opencv") -> np.ndarray:
    """Grey levels of 0 to 255 of a picture file, (height, width).

    Colour becomes luma (ITU-R BT.601): with grey="opencv" in the decoder, as OpenCV reads a picture as grey, which
    of a JPEG is the luma that it stores; with "pillow" from the decoded colours, in 16-bit fixed point, to the bit
    what Pillow's convert("L") makes. 8-bit files give uint8; 16-bit files give float32, level / 257.

    Raises FileNotFoundError where there is no such file, ValueError where it is no readable picture.
    """
    if grey not in get_args(Grey):
        raise ValueError(f"grey must be one of {', '.join(get_args(Grey))}, got {grey!r}")
    if grey == "opencv":
        levels = _decode(Path(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    else:
        levels = luma(_decode(Path(path), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH))
    if levels.dtype == np.uint8:
        return levels
    if levels.dtype == np.uint16:
        return levels.astype(np.float32) / 257
    raise ValueError(f"{path}: expected a picture of 8 or 16 bits a channel, found {levels.dtype}")


def luma(colour: np.ndarray) -> np.ndarray:
    """Luma of integer colours (height, width, 3) in order blue, green, red, as Pillow rounds it; same dtype."""
    blue, green, red = (colour[..., channel].astype(np.int64) for channel in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(colour.dtype)


def read_mask(path: str | Path, object_level: ObjectLevel = "half") -> np.ndarray:
    """A mask file as uint8, (height, width): 1 where the largest of its colours is object, see `objects`.

    Raises FileNotFoundError where there is no such file, ValueError where it is no readable picture.
    """
    return objects(labels_of(read_levels(path)), object_level)


def read_levels(path: str | Path) -> np.ndarray:
    """The largest colour of each pixel of a picture file as it is stored, (height, width)."""
    levels = _decode(Path(path), cv2.IMREAD_UNCHANGED)
    return levels[..., :3].max(-1) if levels.ndim == 3 else levels


def read_picture(image_path: Path, mask_path: Path, name: str, grey: Grey = "opencv") -> Picture:
    """A picture and its mask; raises ValueError where their proportions differ by more than 2%.

    Published masks may be larger than their picture: SIRST's Misc_111 is 325x220, its mask 592x400.
    """
    image, mask = read_image(image_path, grey), labels_of(read_levels(mask_path))
    proportion = mask.shape[1] * image.shape[0] / (mask.shape[0] * image.shape[1])
    if not 0.98 < proportion < 1.02:
        raise ValueError(
            f"{mask_path}: expected a mask in the proportions of its picture's {_size(image)} pixels, "
            f"found {_size(mask)}"
        )
    return Picture(image, mask, name)


def is_picture(path: Path) -> bool:
    """Whether the name ends as a picture's does."""
    return path.name.lower().removesuffix(".gz").endswith(ENDINGS)


def stem(path: Path) -> str:
    """The name of a picture file without its ending: im0001.ah for im0001.ah.ppm.gz."""
    return Path(path.name.removesuffix(".gz")).stem


def _decode(path: Path, flags: int) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a picture")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"{path}: more than {MOST_BYTES} bytes, too large for a picture")
        levels = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if content else None
    except (cv2.error, EOFError, gzip.BadGzipFile, zlib.error, MemoryError) as error:
        reason = "too many pixels" if "CV_IO_MAX_IMAGE" in str(error) else error
        raise ValueError(f"{path}: not a readable picture ({reason})") from error
    if levels is None:
        raise ValueError(f"{path}: not a readable picture; expected one of {', '.join(ENDINGS)}")
    return levels


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
