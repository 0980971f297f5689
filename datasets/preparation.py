"""From pictures to samples: size, augmentation, normalisation."""

import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple, Protocol

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look-up of newer releases on import

import albumentations as A
import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from .reading.masks import ObjectLevel, objects
from .reading.picture import Picture, Sample

KEPT_BYTES = 2**32  # the most that a data set's decoded pictures may take in memory
SYMMETRIES = ("e", "r90", "r180", "r270", "v", "h", "t", "hvt")  # of a square, as albumentations calls them


class Pictures(Protocol):
    """A collection of pictures that can be counted and indexed."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Picture: ...


class Turn(NamedTuple):
    """A picture in an epoch, which decides its augmentation."""

    epoch: int
    picture: int


class Cut(NamedTuple):
    """A sample as part of a kept picture: pixel (y, x) is at first + y down + x across of its pixels in a row.

    version: the symmetry that it was kept in.
    """

    version: str
    height: int
    width: int
    first: int
    down: int
    across: int


class SegmentationDataset(Dataset[Sample]):
    """Samples for a network from `pictures`.

    Each is first, with `augment`, turned and mirrored by one of the square's eight symmetries at random, which is
    what flips along both axes and a transpose make, each with probability 1/2; then resized to (size, size), image
    bilinearly and mask to the nearest (`size=None` keeps the image's own size); then normalised,
    (level - mean) / std, levels from 0 to 255. The order counts: OpenCV's nearest pixel lies up to a pixel off, on
    the same side always, so that masks turned after resizing would contradict each other. With `crop` a random
    (size, size) window is cut out instead of resizing; every other window, at random, holds an object pixel drawn
    at random, anywhere in the window.

    The mask is 1 where its level is object (`object_level`, see `objects`), else 0; with `soft` it is the level's
    share of the largest instead, as the authors train, unless levels are classes ("any"), of which one is no less
    an object than another. Pictures with a side above `largest` keep their own size.

    Raises ValueError where `size` is less than one or, with `crop`, missing, where `seed` is negative, and where a
    picture is smaller than its window.

    The augmentation of a picture depends on (seed, epoch, index) alone; set `epoch` before each epoch, or ask for
    `Turn(epoch, picture)` instead of an index.
    `keep()` decodes every picture once and for all, where memory allows: in every symmetry if it is resized.

    >>> from unfoldkit.datasets import SyntheticScenes
    >>> dataset = SegmentationDataset(SyntheticScenes("test", count=2, size=64), size=32)
    >>> sample = dataset[1]
    >>> sample.image.shape, sample.mask.shape, sample.name
    (torch.Size([1, 32, 32]), torch.Size([1, 32, 32]), 'test_0001')
    """

    def __init__(
        self,
        pictures: Pictures,
        size: int | None = 256,
        mean: float = 0.0,
        std: float = 255.0,
        augment: bool = False,
        seed: int = 0,
        crop: bool = False,
        soft: bool = False,
        object_level: ObjectLevel = "half",
        largest: float = math.inf,
    ) -> None:
        if crop and size is None:
            raise ValueError("size is missing: crop needs the size of the windows")
        if size is not None and size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        self.pictures, self.size, self.mean, self.std, self.seed = pictures, size, mean, std, seed
        self.epoch, self.crop, self.object_level = 0, crop, object_level
        self.soft = soft and object_level != "any"
        self.largest = largest
        self.kept: list[dict[str, Picture]] = []  # of each picture, by the symmetry that it is in
        self.symmetry = A.D4(p=1) if augment else None

    def __len__(self) -> int:
        return len(self.pictures)

    def keep(self, limit: int = KEPT_BYTES) -> bool:
        """Decode and resize every picture now and keep it in memory, unless they would take over `limit` bytes.

        Returns whether they are kept. Raises what reading a picture raises.
        """
        if not self.kept:
            symmetries = SYMMETRIES if self.symmetry else ("e",)
            if len(self) * bytes_of(self._sized(0, symmetries)) <= limit:
                with ThreadPoolExecutor() as threads:
                    self.kept = list(threads.map(self._sized, range(len(self)), repeat(symmetries)))
        return bool(self.kept)

    def __getitem__(self, index: int | Turn) -> Sample:
        turn = self._turn(index)
        _, (image, mask, name), rest = self._version(turn)
        window = self._window(turn, mask, name)
        label = self.label(_turned(mask[window], rest))
        return Sample(
            image=normalise(_turned(image[window], rest), self.mean, self.std),
            mask=torch.from_numpy(label.astype(np.float32))[None],
            name=name,
        )

    def cut(self, index: int | Turn) -> Cut:
        """Where `self[index]` lies in its kept picture."""
        turn = self._turn(index)
        version, (image, mask, name), rest = self._version(turn)
        rows, columns = self._window(turn, mask, name)
        places = _turned(_numbered(image.shape)[rows, columns], rest)
        (height, width), first = places.shape, int(places[0, 0])
        down = int(places[1, 0]) - first if height > 1 else 0
        across = int(places[0, 1]) - first if width > 1 else 0
        return Cut(version, height, width, first, down, across)

    def label(self, mask: np.ndarray) -> np.ndarray:
        """What a network is to find of a picture's mask: shares, or 0 and 1."""
        return mask if self.soft else objects(mask, self.object_level)

    @property
    def scale(self) -> tuple[float, float]:
        """Mean and standard deviation, as levels from 0 to 255."""
        return self.mean, self.std

    def _turn(self, index: int | Turn) -> Turn:
        return index if isinstance(index, Turn) else Turn(self.epoch, index)

    def _seed(self, turn: Turn) -> int:
        return int(np.random.SeedSequence((self.seed, *turn)).generate_state(1)[0])

    def _window(self, turn: Turn, mask: np.ndarray, name: str) -> tuple[slice, slice]:
        """Rows and columns of the picture that are used."""
        if not self.crop or self.size is None:
            return slice(None), slice(None)
        there = objects(mask, self.object_level)
        return _random_window(np.random.default_rng(self._seed(turn)), there, self.size, name)

    def _symmetry(self, turn: Turn) -> str:
        """Which of the square's symmetries the sample is in."""
        if self.symmetry is None:
            return "e"
        self.symmetry.set_random_seed(self._seed(turn))
        return str(self.symmetry.get_params()["group_element"])

    def _version(self, turn: Turn) -> tuple[str, Picture, str]:
        """Which version of a picture a sample is of, that version, and the symmetry that it is still to take."""
        symmetry = self._symmetry(turn)
        versions = self.kept[turn.picture] if self.kept else self._sized(turn.picture, (symmetry,))
        if symmetry in versions:
            return symmetry, versions[symmetry], "e"
        return "e", versions["e"], symmetry

    def _sized(self, index: int, symmetries: Sequence[str]) -> dict[str, Picture]:
        """A picture at its samples' size: in these symmetries where it is resized, else as it is."""
        image, mask, name = self.pictures[index]
        own = self.size is None or self.crop or max(image.shape) > self.largest
        shape = image.shape if own else (self.size, self.size)
        kept = ("e",) if own or image.shape == mask.shape == shape else symmetries
        return {
            symmetry: Picture(
                _resized(_turned(image, symmetry), shape, cv2.INTER_LINEAR),
                _resized(_turned(mask, symmetry), shape, cv2.INTER_NEAREST),
                name,
            )
            for symmetry in kept
        }


def bytes_of(versions: dict[str, Picture]) -> int:
    """What a picture takes in memory."""
    return sum(image.nbytes + mask.nbytes for image, mask, _ in versions.values())


def require_one_size(samples: Iterable[tuple[str, int, int]]) -> None:
    """Raises ValueError, with two pictures and what to do, where samples (name, height, width) differ in size."""
    of_size: dict[str, str] = {}
    for name, height, width in samples:
        of_size.setdefault(f"{width}x{height} pixels", name)
    if len(of_size) > 1:
        first, other = [f"{name} of {size}" for size, name in of_size.items()][:2]
        raise ValueError(
            f"pictures of one batch must be of one size, got {first} and {other}: "
            "set a size that they are resized to or, with crop, that windows of them have"
        )


def normalise(image: np.ndarray, mean: float, std: float) -> torch.Tensor:
    """(level - mean) / std of grey levels (height, width), as float32 of shape (1, height, width).

    Raises ValueError where `image` is not two-dimensional or `std` not positive.
    """
    if image.ndim != 2:
        raise ValueError(f"image must be (height, width), got shape {image.shape}")
    if not std > 0:
        raise ValueError(f"std must be positive, got {std}")
    return torch.from_numpy((image.astype(np.float32) - np.float32(mean)) / np.float32(std))[None]


def _random_window(rng: np.random.Generator, mask: np.ndarray, size: int, name: str) -> tuple[slice, slice]:
    """Rows and columns of a random (size, size) window.

    One in two is drawn from those alone that hold an object pixel, which itself is drawn from all of them.
    """
    if min(mask.shape) < size:
        raise ValueError(f"picture {name!r} of {mask.shape[1]}x{mask.shape[0]} pixels: too small for {size}")
    first, last = np.zeros(2, int), np.array(mask.shape) - size
    if rng.random() < 0.5 and mask.any():
        held = rng.choice(np.argwhere(mask))
        first, last = np.maximum(first, held - size + 1), np.minimum(last, held)
    row, column = (int(x) for x in rng.integers(first, last + 1))
    return slice(row, row + size), slice(column, column + size)


@lru_cache(maxsize=4)
def _numbered(shape: tuple[int, int]) -> np.ndarray:
    return np.arange(math.prod(shape)).reshape(shape)


def _turned(plane: np.ndarray, symmetry: str) -> np.ndarray:
    """A view of the plane under one of the square's symmetries."""
    if symmetry in ("t", "hvt"):
        plane = plane.T
    turns = {"r90": 1, "r180": 2, "r270": 3, "hvt": 2}.get(symmetry, 0)
    plane = np.rot90(plane, turns)
    return {"v": np.flipud, "h": np.fliplr}.get(symmetry, np.asarray)(plane)


def _resized(levels: np.ndarray, shape: tuple[int, ...], interpolation: int) -> np.ndarray:
    if levels.shape == shape:
        return levels
    return cv2.resize(np.ascontiguousarray(levels), (shape[1], shape[0]), interpolation=interpolation)
