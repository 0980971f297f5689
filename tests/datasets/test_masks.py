"""Masks: which levels are object, what JPEG leaves of them, and masks that cannot be meant as they are."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import cv2
import numpy as np
import pytest

from unfoldkit.datasets import objects, open_pictures, read_mask
from unfoldkit.datasets.reading.masks import labels_of
from unfoldkit.rpcanet.inference.data_set import evaluate_data_set
from unfoldkit.rpcanet.inference.options import Evaluation

RNG = np.random.default_rng(0)
TARGET = np.zeros((32, 32), np.uint8)
TARGET[9:13, 14:18] = 255


def with_alpha(colour, alpha):
    return np.dstack([colour, colour, colour, alpha])


OPAQUE = np.full_like(TARGET, 255)
SUSPECT = {
    "transparent, white everywhere": with_alpha(OPAQUE, TARGET),
    "transparent, black everywhere": with_alpha(np.zeros_like(TARGET), TARGET),
    "transparent around the object": with_alpha(TARGET, TARGET),
    "full": OPAQUE,
    "of classes": np.where(TARGET > 0, np.arange(32, dtype=np.uint8) % 3 + 1, 0).astype(np.uint8),
}


@pytest.fixture
def data_set(tmp_path):
    """A function that lays out one picture for each mask, by name."""

    def laid_out(masks):
        for part in ("images", "masks"):
            (tmp_path / "train" / part).mkdir(parents=True)
        for name, mask in masks.items():
            cv2.imwrite(
                str(tmp_path / f"train/images/{name}.png"),
                RNG.integers(0, 255, mask.shape[:2], dtype=np.uint8),
            )
            cv2.imwrite(str(tmp_path / f"train/masks/{name}.png"), mask)
        return tmp_path

    return laid_out


@pytest.mark.parametrize("object_level", ["half", "maximum"])
@pytest.mark.parametrize(("top", "quality"), [(60, 75), (60, 95), (255, 30), (255, 50), (255, 75), (255, 95)])
def test_ringing_of_jpeg_is_no_object(tmp_path, quality, top, object_level):
    path = tmp_path / "m.jpg"
    cv2.imwrite(str(path), TARGET // 255 * top, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert (cv2.imread(str(path), 0) > 0).sum() > 16
    assert np.array_equal(read_mask(path, object_level), TARGET // 255)


@pytest.mark.parametrize(
    ("level", "expected"), [("maximum", [0, 0, 0, 1]), ("half", [0, 0, 1, 1]), ("any", [0, 1, 1, 1])]
)
def test_which_levels_are_object(tmp_path, level, expected):
    cv2.imwrite(str(tmp_path / "m.png"), np.array([[0, 64, 130, 254]], np.uint8))
    assert read_mask(tmp_path / "m.png", level).tolist() == [expected]


def test_labels_of_any_dtype():
    assert labels_of(np.array([[0, 65535]], np.uint16)).tolist() == [[0, 1]]
    assert labels_of(np.array([[0.0, 0.25, 0.5]])).tolist() == [[0, 0.5, 1]]
    assert labels_of(np.array([[np.nan, 3.0]])).tolist() == [[0, 1]]
    assert not labels_of(np.array([[-1, 0]], np.int16)).any()
    with pytest.raises(ValueError, match="object_level must be one of maximum, half, any, got 'most'"):
        objects(TARGET, "most")


@pytest.mark.parametrize("kind", SUSPECT)
def test_suspect_masks_are_refused_unless_told(data_set, kind):
    root = data_set({"a": TARGET, "b": SUSPECT[kind], "c": TARGET})
    pictures = open_pictures("folder", "train", root, allow_suspect_masks=False)
    assert np.array_equal(pictures[0].mask, TARGET // 255)
    with pytest.raises(ValueError, match=f"b.png: the mask is {kind.split(',')[0].split(' around')[0]}"):
        pictures[1]
    kept = open_pictures("folder", "train", root, allow_suspect_masks=False, skip_bad=True)
    assert [picture.name for picture in kept] == ["a", "c"]
    assert "b.png: the mask is" in kept.skipped[0]
    assert len(list(open_pictures("folder", "train", root, keep_empty=True))) == 3


def assumptions_of(root):
    options = Evaluation("folder", root=str(root), split="train", method="pcp", keep_empty=True, size=32)
    return evaluate_data_set(options).assumptions


@pytest.mark.parametrize("kind", SUSPECT)
def test_an_evaluation_says_what_it_took_suspect_masks_for(data_set, kind):
    root = data_set({"a": TARGET, "b": SUSPECT[kind], "c": TARGET})
    [said] = assumptions_of(root)
    assert said.startswith(
        "of 1 suspect masks what is above half of their largest is taken as object; the first, "
    )
    assert f"b.png: the mask is {kind.split(',')[0].split(' around')[0]}" in said


def test_an_evaluation_says_that_masks_look_inverted(data_set):
    root = data_set(dict.fromkeys("abc", 255 - TARGET) | {"d": TARGET})
    [said] = assumptions_of(root)
    assert "masks: the masks look inverted, 3 of 4 have objects on over half of their pixels" in said


def test_an_evaluation_says_nothing_of_masks_as_they_should_be(data_set):
    assert not assumptions_of(data_set({"a": TARGET}))


def test_inverted_masks_are_refused_unless_told(data_set):
    root = data_set(dict.fromkeys("abc", 255 - TARGET) | {"d": TARGET})
    with pytest.raises(ValueError, match=r"masks: the masks look inverted, 3 of 4 have objects on over half"):
        open_pictures("folder", "train", root, allow_suspect_masks=False)
    assert len(list(open_pictures("folder", "train", root))) == 4


def test_some_large_objects_are_not_taken_for_inverted_masks(data_set):
    root = data_set({"a": 255 - TARGET, "b": 255 - TARGET, "c": TARGET, "d": TARGET})
    assert len(list(open_pictures("folder", "train", root, allow_suspect_masks=False))) == 4
