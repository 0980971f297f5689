"""From the bytes of a picture file to the levels of its pages, turned as the file says (EXIF)."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np

from . import tiff

cv2.utils.logging.setLogLevel(0)  # what cannot be read is said in an error, once

MOST_BYTES = 2**30  # of a picture file, before and after decompression
MOST_PIXELS = 2**30  # of all frames of an animation together
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
GREY = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
COLOUR = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
FAULTS = (cv2.error, EOFError, gzip.BadGzipFile, zlib.error, MemoryError)


def contents(path: Path) -> bytes:
    """The bytes of a picture file, unpacked; raises FileNotFoundError or ValueError, which name it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a picture")
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FAULTS as error:
        raise ValueError(f"{path}: not a readable picture ({error})") from error
    if len(content) > MOST_BYTES:
        raise ValueError(f"{path}: more than {MOST_BYTES} bytes, too large for a picture")
    return content


def decode(path: Path, flags: int) -> np.ndarray:
    """The levels of a file that holds one picture, read by OpenCV with `flags`.

    Raises FileNotFoundError where there is no such file, ValueError where it is no readable picture or holds
    several; the message names it.
    """
    pages = decode_pages(path, flags)
    levels = next(pages)
    if next(pages, None) is not None:
        raise ValueError(f"{path}: holds several pages or frames; expected a single picture")
    return levels


def decode_pages(path: Path, flags: int) -> Iterator[np.ndarray]:
    """The levels of every page or frame of a file, one at least; raises as `decode` does."""
    content = contents(path)
    try:
        for number, levels in enumerate(_pages(content, flags), 1):
            if levels is None:
                page = f", page {number}" if number > 1 else ""
                raise ValueError(
                    f"{path}: not a readable picture{page}; expected one of {', '.join(ENDINGS)}"
                )
            yield levels
    except FAULTS as error:
        reason = "too many pixels" if "CV_IO_MAX_IMAGE" in str(error) else " ".join(str(error).split())
        raise ValueError(f"{path}: not a readable picture ({reason})") from error


def count_pages(path: Path) -> int:
    """How many pages or frames a file holds up to one that cannot be read, and one at least.

    The pages of a TIFF file are counted without being decoded, damaged ones too.
    """
    count = 0
    with suppress(FileNotFoundError, ValueError):
        content = contents(path)
        if tiff.is_tiff(content):
            return max(1, len(tiff.pages(content)))
        for _ in decode_pages(path, GREY):
            count += 1
    return max(1, count)


def _pages(content: bytes, flags: int) -> Iterator[np.ndarray | None]:
    """The levels of every page; None for one that cannot be read."""
    if not content:
        yield None
    elif tiff.is_tiff(content):
        yield from _tiff_pages(content, flags)
    elif content.startswith(b"GIF"):
        yield from _frames(content, flags, whole=content.rstrip(b"\0\r\n ").endswith(b";"))
    elif content.startswith(b"\x89PNG") and b"acTL" in content[:200]:
        yield from _frames(content, flags, whole=b"IEND" in content)
    else:
        yield cv2.imdecode(np.frombuffer(content, np.uint8), flags)


def _tiff_pages(content: bytes, flags: int) -> Iterator[np.ndarray | None]:
    directories = tiff.pages(content)
    if len(directories) < 2 and not any(tiff.is_unsigned(content, page) for page in directories):
        yield _tiff_page(tiff.Page(content), flags)
        return
    for directory in directories:
        whole = tiff.is_whole(content, directory)
        yield _tiff_page(tiff.alone(content, directory), flags) if whole else None


def _tiff_page(page: tiff.Page, flags: int) -> np.ndarray | None:
    """The levels of a page; colour and 32-bit levels that OpenCV cannot bring to `flags` as they are stored."""
    data = np.frombuffer(page.content, np.uint8)
    levels = cv2.imdecode(data, flags)
    if levels is None:
        levels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    return levels.view(np.uint32) if page.unsigned and levels is not None else levels


def _frames(content: bytes, flags: int, whole: bool) -> Iterator[np.ndarray | None]:
    """The frames of an animation; None in place of those that are missing or damaged."""
    data = np.frombuffer(content, np.uint8)
    first = cv2.imdecode(data, flags)
    yield first
    if first is None:
        return
    readable, pair = cv2.imdecodemulti(data, flags, range=(0, 2))
    if not readable or not whole:
        yield None
        return
    yield from pair[1:]
    if len(pair) < 2:
        return
    most = MOST_PIXELS // max(1, first.size)
    readable, frames = cv2.imdecodemulti(data, flags, range=(0, most + 1))
    if len(frames) > most:
        raise cv2.error(f"more than {most} frames of this size")
    yield from frames[2:]
    if not readable:
        yield None
