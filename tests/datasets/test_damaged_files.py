"""Damaged files: each is read, or refused in one line that names it; nothing else, and soon."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import gzip
import time
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from unfoldkit.datasets import read_image, read_mask
from unfoldkit.datasets.reading.picture import read_pages
from unfoldkit.datasets.reading.video import read_video

ENDINGS = (".png", ".jpg", ".bmp", ".tif", ".gif", ".ppm", ".pgm", ".ppm.gz", ".avi", ".mp4", ".txt")


def sound_files(folder):
    """One file of each kind."""
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (24, 32), dtype=np.uint8)
    colour = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    deep = (7300 + 3 * levels.astype(np.uint16)).astype(np.uint16)
    pictures = {
        "grey.png": levels,
        "alpha.png": np.dstack([colour, levels]),
        "deep.png": deep,
        "grey.jpg": levels,
        "colour.bmp": colour,
        "deep.tif": deep,
        "float.tif": levels / np.float32(7),
        "double.tif": levels / 7.0,
        "colour.tif": colour,
        "colour.ppm": colour,
        "grey.pgm": levels,
    }
    for name, pixels in pictures.items():
        assert cv2.imwrite(str(folder / name), pixels)
    (folder / "packed.ppm.gz").write_bytes(gzip.compress((folder / "colour.ppm").read_bytes()))
    pages = [Image.fromarray(np.roll(levels, k)) for k in range(3)]
    for name in ("pages.tif", "frames.gif", "frames.png"):
        pages[0].save(folder / name, save_all=True, append_images=pages[1:])
    pages[0].save(folder / "turned.jpg", exif=turned())
    for name, code in (("film.avi", "MJPG"), ("lossless.avi", "FFV1"), ("film.mp4", "mp4v")):
        writer = cv2.VideoWriter(str(folder / name), cv2.VideoWriter.fourcc(*code), 20, (32, 24))
        for k in range(5):
            writer.write(np.roll(colour, k, axis=1))
        writer.release()
    return sorted(folder.iterdir())


def turned():
    exif = Image.Exif()
    exif[274] = 6
    return exif


def damaged(rng, content):
    """Flipped bytes, a cut end, or a piece of something else."""
    content = bytearray(content)
    kind = rng.integers(0, 4)
    if kind == 0:
        return bytes(content[: rng.integers(0, len(content))])
    if kind == 1:
        start = int(rng.integers(0, len(content)))
        content[start : start + 40] = rng.bytes(40)
        return bytes(content)
    near = len(content) if kind == 2 else min(len(content), 200)
    for place in rng.integers(0, near, rng.integers(1, 9)):
        content[place] ^= int(rng.integers(1, 256))
    return bytes(content)


READERS = {
    "image": lambda path: [read_image(path)],
    "pillow": lambda path: [read_image(path, "pillow")],
    "mask": lambda path: [read_mask(path)],
    "pages": lambda path: [graded.image for _, graded in read_pages(path)],
    "video": lambda path: list(read_video(path, block=2)),
}


def read_or_refused(path, read):
    """Read a file; True where it was, False where it was refused properly; in a few seconds."""
    found, said, start = [], "", time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read(path)
    except (FileNotFoundError, ValueError) as error:
        said = str(error)
    assert time.perf_counter() - start < 20
    if said:
        assert path.name in said
        assert "\n" not in said
    for levels in found:
        assert np.isfinite(levels).all()
        assert levels.min() >= 0
        assert levels.max() <= 255
    return not said


def try_files(folder, count):
    """How many of `count` damaged files were read by each reader."""
    rng = np.random.default_rng(1)
    (folder / "sound").mkdir()
    sound = sound_files(folder / "sound")
    read = dict.fromkeys(READERS, 0)
    for number in range(count):
        source = sound[number % len(sound)]
        ending = rng.choice(ENDINGS) if rng.random() < 0.2 else "".join(source.suffixes)
        path = folder / f"{number}{ending}"
        path.write_bytes(damaged(rng, source.read_bytes()))
        for name, reader in READERS.items():
            if name != "video" or source.suffix in (".avi", ".mp4") or number % 10 == 0:
                read[name] += read_or_refused(path, reader)
        path.unlink()
    return read


def test_sound_files_of_every_kind_are_read(tmp_path):
    for path in sound_files(tmp_path):
        reader = "video" if path.suffix in (".avi", ".mp4") else "pages"
        assert read_or_refused(path, READERS[reader]), path.name


def test_damaged_files_are_read_or_named(tmp_path):
    read = try_files(tmp_path, 120)
    assert all(0 < count < 120 for count in read.values())


@pytest.mark.slow
def test_two_thousand_damaged_files_are_read_or_named(tmp_path):
    try_files(tmp_path, 2000)
