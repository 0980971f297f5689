"""From pictures to samples: size, augmentation, normalisation."""

import os
from typing import Protocol

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no look-up of newer releases on import

import albumentations as A
import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.picture import Picture, Sample


class Pictures(Protocol):
    """A collection of pictures that can be counted and indexed."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Picture: ...


class SegmentationDataset(Dataset[Sample]):
    """Samples for a network from `pictures`.

    Each is resized to (size, size), image bilinearly and mask to the nearest (`size=None` keeps the image's own
    size); with `augment` turned and mirrored by one of the square's eight symmetries at random, which is what
    flips along both axes and a transpose make, each with probability 1/2; then normalised, (level - mean) / std,
    levels from 0 to 255.

    The augmentation of a picture depends on (seed, epoch, index) alone; set `epoch` before each epoch.

    >>> from datasets import SyntheticScenes
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
    ) -> None:
        self.pictures, self.size, self.mean, self.std, self.seed = pictures, size, mean, std, seed
        self.epoch = 0
        self.transform = A.Compose([A.D4(p=1)] if augment else [])

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Sample:
        image, mask, name = self.pictures[index]
        shape = image.shape if self.size is None else (self.size, self.size)
        self.transform.set_random_seed(_seed(self.seed, self.epoch, index))
        prepared = self.transform(
            image=_resized(image, shape, cv2.INTER_LINEAR), mask=_resized(mask, shape, cv2.INTER_NEAREST)
        )
        return Sample(
            image=normalise(prepared["image"], self.mean, self.std),
            mask=torch.from_numpy(prepared["mask"].astype(np.float32))[None],
            name=name,
        )


def normalise(image: np.ndarray, mean: float, std: float) -> torch.Tensor:
    """(level - mean) / std of grey levels (height, width), as float32 of shape (1, height, width)."""
    return torch.from_numpy((image.astype(np.float32) - np.float32(mean)) / np.float32(std))[None]


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _resized(levels: np.ndarray, shape: tuple[int, ...], interpolation: int) -> np.ndarray:
    if levels.shape == shape:
        return levels
    return cv2.resize(levels, (shape[1], shape[0]), interpolation=interpolation)
