"""Infrared scenes made up from a seed: no download, any number, any size, exact masks."""

import cv2
import numpy as np

from .reading.picture import Picture

SPLITS = {"train": 0, "val": 1, "test": 2}
SMALLEST, LARGEST = 2, 80


class SyntheticScenes:
    """Infrared scenes of small targets before a structured background.

    A scene is  background + clutter + targets + noise,  in grey levels of 0 to 255:

    - background: a sum of a few products of smooth curves, u_r(row) v_r(column), of rank 4 at most;
    - clutter: cloud-like blurred noise of several widths, and warm building-like boxes in every other scene;
    - targets: up to 3 (in one scene of ten none), elliptic, of 2 to 80 pixels, brighter than what surrounds
      them; the mask is exactly the target's pixels, and two targets never touch;
    - noise: white Gaussian.

    Scene `index` of a split depends on (seed, split, index) and the size alone.

    count: number of scenes.  size: height and width in pixels, at least 32.  seed: any non-negative integer.

    Raises ValueError for another split than train, val, test, or for a count, size or seed out of range.

    >>> scenes = SyntheticScenes("train", count=3, size=64, seed=1)
    >>> image, mask, name = scenes[0]
    >>> image.shape, mask.shape, name
    ((64, 64), (64, 64), 'train_0000')
    """

    def __init__(self, split: str, count: int, size: int = 128, seed: int = 42) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if count < 1 or size < 32:
            raise ValueError(f"count must be at least 1 and size at least 32, got {count} and {size}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0, got {seed}")
        self.split, self.count, self.size, self.seed = split, count, size, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Picture:
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        rng = np.random.default_rng([self.seed, SPLITS[self.split], index])
        scene = _background(rng, self.size) + _clutter(rng, self.size)
        scene, mask = _with_targets(rng, scene)
        scene += rng.normal(0, rng.uniform(1, 4), scene.shape)
        return Picture(np.clip(scene, 0, 255).round().astype(np.uint8), mask, f"{self.split}_{index:04d}")


def _smooth_curve(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random curve on [0, 1] of a few low frequencies, scaled to [-1, 1]."""
    t = np.linspace(0, 1, size)
    frequencies = np.arange(1, 5)
    phases, weights = rng.uniform(0, 2 * np.pi, 4), rng.normal(0, 1 / frequencies)
    curve = (weights[:, None] * np.cos(np.pi * frequencies[:, None] * t + phases[:, None])).sum(0)
    return curve / max(np.abs(curve).max(), 1e-6)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Rank at most 4: a level and up to three separable terms."""
    background = np.full((size, size), rng.uniform(50, 130))
    for amplitude in rng.uniform(5, 40, rng.integers(1, 4)):
        background += amplitude * np.outer(_smooth_curve(rng, size), _smooth_curve(rng, size))
    return background


def _clutter(rng: np.random.Generator, size: int) -> np.ndarray:
    clutter = np.zeros((size, size))
    for width in (size / 8, size / 20, 3):
        field = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), width)
        clutter += rng.uniform(0, 10) * field / field.std()
    for _ in range(rng.integers(0, 4) if rng.random() < 0.5 else 0):
        (row, column), (height, width) = rng.integers(0, size, 2), rng.integers(size // 10, size // 3, 2)
        clutter[row : row + height, column : column + width] += rng.uniform(-25, 25)
    return clutter


def _with_targets(rng: np.random.Generator, scene: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay targets over a scene; returns the scene and the mask of their pixels."""
    size = len(scene)
    mask = np.zeros((size, size), np.uint8)
    for _ in range(0 if rng.random() < 0.1 else rng.integers(1, 4)):
        area = round(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
        distance = _elliptic_distance(rng, size)
        nearest = np.argpartition(distance.ravel(), area)[:area]
        target = np.zeros((size, size), np.uint8)
        target.ravel()[nearest] = 1
        if np.logical_and(cv2.dilate(target, np.ones((5, 5), np.uint8)), mask).any():
            continue
        surroundings = cv2.dilate(target, np.ones((9, 9), np.uint8)).astype(bool)
        contrast = rng.uniform(25, 90) + 2 * scene[surroundings].std()
        reach = distance.ravel()[nearest].max()
        scene = scene + contrast * np.exp(-0.7 * (distance / max(reach, 0.5)) ** 4)
        mask |= target
    return scene, mask


def _elliptic_distance(rng: np.random.Generator, size: int) -> np.ndarray:
    """Distance from a random centre, away from the border, in a random elliptic norm."""
    row, column = rng.uniform(8, size - 9, 2)
    angle, elongation = rng.uniform(0, np.pi), rng.uniform(1, 1.8)
    y, x = np.mgrid[:size, :size]
    y, x = y - row, x - column
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.hypot(along / elongation, across * elongation)
