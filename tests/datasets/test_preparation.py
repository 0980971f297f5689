"""Samples: sizes, normalisation, and augmentation that picture and mask share."""

import itertools

import cv2
import numpy as np
import pytest
import torch

from unfoldkit.datasets import Picture, SegmentationDataset, SyntheticScenes
from unfoldkit.datasets.datamodule import SegmentationData

RAMP = np.arange(12 * 18, dtype=np.uint8).reshape(12, 18)


def dataset(image=RAMP, **options):
    return SegmentationDataset([Picture(image, (image > 100).astype(np.uint8), "ramp")], **options)


def test_own_size_and_normalisation():
    image, mask, name = dataset(size=None, mean=100, std=50)[0]
    np.testing.assert_allclose(image[0].numpy(), (RAMP - 100.0) / 50, rtol=1e-6, atol=1e-6)
    assert torch.equal(mask[0], torch.from_numpy((RAMP > 100).astype(np.float32)))
    assert name == "ramp"


def test_fine_levels_survive():
    image = dataset(RAMP.astype(np.float32) + 0.25, size=None, std=1)[0].image
    assert image[0, 0, 1].item() == 1.25


def test_mask_of_another_size_comes_to_the_pictures():
    image = np.zeros((10, 20), np.uint8)
    mask = np.zeros((20, 40), np.uint8)
    mask[4:8, 10:20] = 1
    found = SegmentationDataset([Picture(image, mask, "fine mask")], size=None)[0].mask
    assert found.shape == (1, 10, 20)
    assert found[0, 2:4, 5:10].all()
    assert found.sum() == 10


def test_augmentation_moves_picture_and_mask_together_in_all_eight_ways():
    data = dataset(RAMP[:12, :12], size=None, std=1, augment=True)
    seen = set()
    for data.epoch in range(60):
        image, mask, _ = data[0]
        assert torch.equal(mask, (image > 100).float())
        seen.add(tuple(image.flatten().tolist()))
    assert len(seen) == 8


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    scenes = SyntheticScenes("train", 4, 32)
    first, second = (SegmentationDataset(scenes, None, augment=True, seed=5) for _ in range(2))
    first[0], first[3]
    assert torch.equal(first[2].image, second[2].image)


def test_batches_need_as_many_pictures():
    data = SegmentationDataset(SyntheticScenes("train", 4, 32), None)
    with pytest.raises(ValueError, match="batch_size must be from 1 to the 4 training pictures, got 5"):
        SegmentationData(data, data, batch_size=5)


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_of_one_batch_are_of_one_size_or_named(workers):
    large, small = (SyntheticScenes("train", 1, size)[0] for size in (64, 48))
    pictures = SegmentationDataset([large._replace(name="large"), small._replace(name="small")], None)
    data = SegmentationData(pictures, pictures, batch_size=2, workers=workers)
    complaint = "(large of 64x64|small of 48x48) pixels.*(large|small).*: set a size"
    with pytest.raises(ValueError, match=complaint):
        next(iter(data.train_dataloader()))
    each = SegmentationData(pictures, pictures, batch_size=1, workers=workers)
    assert {batch.image.shape[2:] for batch in each.train_dataloader()} == {(64, 64), (48, 48)}


@pytest.mark.parametrize(
    ("count", "keep_last", "batches"), [(7, True, [4, 3]), (7, False, [4]), (5, True, [4]), (8, True, [4, 4])]
)
def test_the_last_batch_is_kept_unless_it_is_a_single_picture(count, keep_last, batches):
    data = SegmentationDataset(SyntheticScenes("train", count, 32), None)
    module = SegmentationData(data, data, batch_size=4, workers=0, keep_last=keep_last)
    assert [len(batch.image) for batch in module.train_dataloader()] == batches
    assert len(module.train_dataloader()) == len(batches)


LABELS = np.array([[0, 0.1, 0.6, 1]], np.float32)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"soft": True}, [0, 0.1, 0.6, 1]),
        ({"object_level": "maximum"}, [0, 0, 0, 1]),
        ({}, [0, 0, 1, 1]),
        ({"object_level": "any"}, [0, 1, 1, 1]),
        ({"object_level": "any", "soft": True}, [0, 1, 1, 1]),  # levels are classes
    ],
)
def test_labels_are_soft_for_training_and_two_level_for_evaluation(options, expected):
    mask = SegmentationDataset([Picture(np.zeros((1, 4)), LABELS, "a")], size=None, **options)[0].mask
    assert mask.dtype == torch.float32
    assert torch.equal(mask, torch.tensor([[expected]], dtype=torch.float32))


def test_half_the_windows_hold_an_object_pixel_anywhere_in_them():
    mask = np.zeros((100, 100), np.uint8)
    mask[50, 40] = 1
    data = SegmentationDataset([Picture(mask, mask, "a")], size=10, crop=True, seed=3)
    places = []
    for data.epoch in range(4000):
        places += [tuple(place[1:].tolist()) for place in data[0].mask.nonzero()]
    assert 0.48 < len(places) / 4000 < 0.54  # half, and 1 in 83 of those drawn from all
    rows, columns = (np.bincount(axis, minlength=10) for axis in zip(*places, strict=True))
    assert rows.min() > 0.7 * rows.mean()
    assert columns.min() > 0.7 * columns.mean()


@pytest.mark.parametrize("keep", [False, True])
def test_pictures_are_turned_before_they_are_resized(keep):
    """As the authors do: a mask's nearest pixels lie on one side, whatever the symmetry."""
    generator = np.random.default_rng(0)
    image, mask = generator.integers(0, 256, (2, 30, 41)).astype(np.uint8)
    mask //= 200
    data = SegmentationDataset([Picture(image, mask, "a")], size=32, augment=True)
    assert not keep or data.keep()
    expected = set()
    for down, across, transposed in itertools.product((1, -1), (1, -1), (False, True)):
        turned = [plane[::down, ::across] for plane in (image, mask)]
        turned = [np.ascontiguousarray(plane.T if transposed else plane) for plane in turned]
        methods = (cv2.INTER_LINEAR, cv2.INTER_NEAREST)
        small = [cv2.resize(x, (32, 32), interpolation=m) for x, m in zip(turned, methods, strict=True)]
        expected.add(tuple(plane.tobytes() for plane in small))
    found = set()
    for data.epoch in range(80):
        levels = ((255 * data[0].image).round(), data[0].mask)
        found.add(tuple(plane.numpy().astype(np.uint8).tobytes() for plane in levels))
    assert len(expected) == 8
    assert found == expected


def test_a_window_holds_an_object_pixel_at_the_border_as_often_as_any():
    mask = np.zeros((20, 20), np.uint8)
    mask[0, 19] = 1
    data = SegmentationDataset([Picture(mask, mask, "a")], size=8, crop=True)
    held = 0
    for data.epoch in range(400):
        held += data[0].mask[0, 0, 7].item()
    assert 0.43 < held / 400 < 0.57


class Counted:
    """Pictures that count how often they are read."""

    def __init__(self, pictures):
        self.pictures, self.reads = pictures, 0

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        self.reads += 1
        return self.pictures[index]


@pytest.mark.parametrize("options", [{"size": 32}, {"size": None}, {"size": 24, "crop": True}])
def test_kept_pictures_are_read_once_and_give_the_same_samples(options):
    pictures = Counted(SyntheticScenes("train", 3, 48))
    plain = SegmentationDataset(pictures, augment=True, seed=1, **options)
    expected = [plain[index] for index in range(3)]
    kept = SegmentationDataset(pictures, augment=True, seed=1, **options)
    pictures.reads = 0
    assert kept.keep()
    reads = pictures.reads
    for _ in range(2):
        for sample, other in zip((kept[index] for index in range(3)), expected, strict=True):
            assert torch.equal(sample.image, other.image)
            assert torch.equal(sample.mask, other.mask)
    assert pictures.reads == reads


def test_pictures_larger_than_the_limit_are_not_kept():
    dataset = SegmentationDataset(SyntheticScenes("train", 3, 48), size=32)
    assert not dataset.keep(limit=3 * 2 * 32 * 32 - 1)
    assert dataset.keep(limit=3 * 2 * 32 * 32)
