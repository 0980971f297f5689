"""Batches cut out of a device's memory are those of the data set, to the bit, whatever augmentation and window."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import numpy as np
import pytest
import torch

from unfoldkit.datasets import SegmentationDataset, SyntheticScenes
from unfoldkit.datasets.datamodule import Rest, SegmentationData, of_one_size
from unfoldkit.datasets.preparation import Turn
from unfoldkit.datasets.reading.picture import Picture
from unfoldkit.datasets.resident import ResidentBatches, ResidentPictures

KINDS = {
    "symmetries": {"size": 40, "augment": True},
    "resized symmetries": {"size": 32, "augment": True},
    "windows": {"size": 16, "crop": True, "augment": True, "mean": 83.59, "std": 54.18},
    "own size": {"size": None, "mean": 3.0, "std": 7.0},
    "shares": {"size": 24, "soft": True},
}
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_those_of_the_data_set(kind, device):
    dataset = SegmentationDataset(SyntheticScenes("train", count=6, size=40), seed=3, **KINDS[kind])
    dataset.keep()
    resident = ResidentPictures(dataset, torch.device(device))
    for epoch in range(8):
        batch = resident.batch([Turn(epoch, index) for index in range(6)])
        for index in range(6):
            sample = dataset[Turn(epoch, index)]
            assert torch.equal(batch.image[index].cpu(), sample.image)
            assert torch.equal(batch.mask[index].cpu(), sample.mask)
            assert batch.name[index] == sample.name
            assert (batch.image.dtype, batch.mask.dtype) == (sample.image.dtype, sample.mask.dtype)


def test_pictures_that_are_not_in_memory_are_refused():
    with pytest.raises(ValueError, match="not in memory"):
        ResidentPictures(SegmentationDataset(SyntheticScenes("train", count=2)), torch.device("cpu"))


def test_pictures_of_two_sizes_are_named_as_a_loader_names_them():
    sizes = {"a": (9, 7), "b": (9, 7), "seq/c": (9, 5)}
    pictures = [Picture(*np.zeros((2, *size), np.uint8), name) for name, size in sizes.items()]
    dataset = SegmentationDataset(pictures, size=None)
    dataset.keep()
    turns = [Turn(0, index) for index in range(3)]
    with pytest.raises(
        ValueError, match="got a of 7x9 pixels and seq/c of 5x9 pixels: set a size"
    ) as resident:
        ResidentPictures(dataset, torch.device("cpu")).batch(turns)
    with pytest.raises(ValueError, match="one size") as loaded:
        of_one_size([dataset[turn] for turn in turns])
    assert str(resident.value) == str(loaded.value)


@pytest.mark.parametrize("keep_last", [True, False])
def test_a_loader_and_resident_batches_agree(keep_last):
    pictures = SegmentationDataset(SyntheticScenes("train", count=8, size=32), size=32, augment=True)
    data = SegmentationData(pictures, pictures, batch_size=3, workers=0, keep_last=keep_last)
    loader = data.train_dataloader()
    rest = Rest(data.sampler, lambda: 3)
    resident = ResidentBatches(ResidentPictures(pictures, torch.device("cpu")), rest, 3, loader.drop_last)
    assert len(resident) == len(loader) == (3 if keep_last else 2)
    for one, other in zip(resident, list(loader)[1:], strict=True):
        assert torch.equal(one.image, other.image)
        assert list(one.name) == list(other.name)


def test_workers_stay_from_epoch_to_epoch():
    pictures = SegmentationDataset(SyntheticScenes("train", count=4, size=32), size=32, augment=True)
    data = SegmentationData(pictures, pictures, batch_size=2, workers=1)
    loader = data.train_dataloader()
    first = [batch.image for batch in loader]
    workers = loader._iterator._workers
    assert data.train_dataloader() is loader
    data.sampler.set_epoch(1)
    second = [batch.image for batch in loader]
    assert loader._iterator._workers is workers
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
