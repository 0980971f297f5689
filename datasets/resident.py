"""Batches cut out of pictures that lie in a device's memory, ready for a network without a copy from the host."""

from collections.abc import Iterable, Iterator, Sized
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .preparation import Cut, SegmentationDataset, Turn, bytes_of, require_one_size
from .reading.picture import Sample

SHARE = 0.25  # of a device's free memory that a data set may take


class Order(Sized, Iterable[Turn], Protocol):
    """Which pictures come, in which epoch's augmentation."""


class ResidentPictures:
    """The kept pictures of `dataset` on `device`, and samples of them: those of `dataset` itself, to the bit.

    Augmentation, windows and normalisation happen on the device, for a batch at a time: a square's symmetry and
    a window are a first pixel and two strides, so that one gather cuts a batch out.

    Raises ValueError where the pictures are not kept.

    >>> from unfoldkit.datasets import SyntheticScenes
    >>> dataset = SegmentationDataset(SyntheticScenes("test", count=3, size=32), size=32, augment=True)
    >>> dataset.keep()
    True
    >>> batch = ResidentPictures(dataset, torch.device("cpu")).batch([Turn(5, 2), Turn(5, 0)])
    >>> batch.image.shape, bool((batch.image[0] == dataset[Turn(5, 2)].image).all())
    (torch.Size([2, 1, 32, 32]), True)
    """

    def __init__(self, dataset: SegmentationDataset, device: torch.device) -> None:
        if not dataset.kept:
            raise ValueError("the pictures are not in memory: call dataset.keep() first")
        self.dataset = dataset
        pictures = {(i, key): p for i, versions in enumerate(dataset.kept) for key, p in versions.items()}
        ends = np.cumsum([picture.image.size for picture in pictures.values()]).tolist()
        self.starts = dict(zip(pictures, [0, *ends], strict=False))
        self.images = _joined([picture.image for picture in pictures.values()]).to(device)
        self.labels = _joined([dataset.label(picture.mask) for picture in pictures.values()]).to(device)
        self.mean, self.std = (torch.tensor([x], dtype=torch.float32, device=device) for x in dataset.scale)

    def batch(self, turns: list[Turn]) -> Sample:
        """One batch; raises ValueError where the samples differ in size."""
        cuts = [self.dataset.cut(turn) for turn in turns]
        names = [self.dataset.kept[turn.picture]["e"].name for turn in turns]
        require_one_size((name, cut.height, cut.width) for name, cut in zip(names, cuts, strict=True))
        index = self._pixels(turns, cuts)
        image, mask = self.images.take(index), self.labels.take(index)
        return Sample(
            image=(image.float() - self.mean) / self.std,
            mask=mask.float(),
            name=names,  # type: ignore[arg-type]  # as collated
        )

    def _pixels(self, turns: list[Turn], cuts: list[Cut]) -> Tensor:
        """Where the pixels of the batch lie, (batch, 1, height, width)."""
        strides = [
            (self.starts[turn.picture, cut.version] + cut.first, cut.down, cut.across)
            for turn, cut in zip(turns, cuts, strict=True)
        ]
        device = self.images.device
        host = torch.tensor(strides).T.contiguous()
        if device.type == "cuda":
            host = host.pin_memory()
        first, down, across = host.to(device, non_blocking=True)[:, :, None, None, None]
        rows, columns = (torch.arange(size, device=device) for size in (cuts[0].height, cuts[0].width))
        return first + down * rows[:, None] + across * columns


class ResidentBatches:
    """What a `DataLoader` of the pictures gives in `order`, from the device.

    Of the first `skipped()` indices nothing comes.
    """

    def __init__(
        self, pictures: ResidentPictures, order: Order, batch_size: int, drop_last: bool = False
    ) -> None:
        self.pictures, self.order, self.batch_size, self.drop_last = pictures, order, batch_size, drop_last

    def __len__(self) -> int:
        whole, left = divmod(len(self.order), self.batch_size)
        return whole + (left > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Sample]:
        turns = iter(self.order)
        while batch := list(islice(turns, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield self.pictures.batch(batch)


def fits(dataset: SegmentationDataset, device: torch.device) -> bool:
    """Whether the pictures are kept and would take no more than their share of the device's free memory."""
    if device.type != "cuda" or not dataset.kept:
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return resident_bytes(dataset) <= SHARE * free


def resident_bytes(dataset: SegmentationDataset) -> int:
    """What the kept pictures take."""
    return sum(map(bytes_of, dataset.kept))


def _joined(planes: list[np.ndarray]) -> Tensor:
    """All pixels in a row, in the dtype that holds them all."""
    return torch.from_numpy(np.concatenate([plane.ravel() for plane in planes]))
