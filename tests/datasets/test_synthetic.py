"""The generated scenes are what their description promises."""

import cv2
import numpy as np
import pytest

from unfoldkit.datasets import SyntheticScenes, open_pictures
from unfoldkit.datasets.synthetic import _background


def test_scenes_depend_on_seed_split_and_index_alone():
    scenes, again = SyntheticScenes("train", 5, 48, seed=1), SyntheticScenes("train", 9, 48, seed=1)
    assert np.array_equal(scenes[3].image, again[3].image)
    for other in (again[4], SyntheticScenes("train", 5, 48, seed=2)[3], SyntheticScenes("val", 5, 48, 1)[3]):
        assert not np.array_equal(scenes[3].image, other.image)


def test_targets_are_of_2_to_80_pixels_brighter_than_their_surroundings_and_apart():
    empty, areas = 0, []
    scenes = SyntheticScenes("test", count=200, size=64)
    for image, mask, _ in scenes:
        number, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        empty += number == 1
        areas += list(stats[1:, cv2.CC_STAT_AREA])
        for k in range(1, number):
            target = (labels == k).astype(np.uint8)
            ring = cv2.dilate(target, np.ones((7, 7), np.uint8)).astype(bool) & (mask == 0)
            assert image[labels == k].mean() > image[ring].mean()
    assert min(areas) == 2
    assert 60 < max(areas) <= 80
    assert 5 < empty < 40


def test_background_is_low_rank():
    values = np.linalg.svd(_background(np.random.default_rng(0), 64), compute_uv=False)
    assert values[4] < 1e-10 * values[0]


@pytest.mark.parametrize("options", [("all", 3), ("train", 0), ("train", 3, 16)])
def test_impossible_requests_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        SyntheticScenes(*options)


def test_no_scenes_are_not_taken_for_the_usual_number():
    with pytest.raises(ValueError, match="count must be at least 1"):
        open_pictures("synthetic", "test", count=0)
    assert len(open_pictures("synthetic", "test", count=None)) == 80


def test_iteration_ends():
    assert len(list(SyntheticScenes("train", count=3, size=32))) == 3
