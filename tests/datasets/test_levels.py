"""Levels of every depth become usable grey levels of 0 to 255, and what is unusual is said."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import warnings

import cv2
import numpy as np
import pytest

from unfoldkit.datasets import open_pictures, read_image
from unfoldkit.datasets.reading.levels import PictureWarning, grade, limits
from unfoldkit.datasets.reading.picture import read_graded

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 50)).astype(np.float64)
RAW = {  # each with the levels of black and white
    "uint16": (7300, 8200),
    "int16": (-200, 900),
    "uint32": (3_000_000_000, 3_000_100_000),
    "int32": (-70_000, 90_000),
    "float32": (10, 40),
    "float64": (283.15, 313.15),
}


def tiff32(levels):
    """A TIFF file of 32-bit unsigned levels, without a word on their sign, as TIFF 6.0 takes for granted."""
    height, width = levels.shape
    tags = {256: width, 257: height, 258: 32, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: levels.nbytes}
    entries = b"".join(
        np.array([tag, 4], "<u2").tobytes() + np.array([1, value], "<u4").tobytes()
        for tag, value in tags.items()
    )
    head = b"II*\0" + np.array([8 + levels.nbytes], "<u4").tobytes()
    return head + levels.astype("<u4").tobytes() + np.array([len(tags)], "<u2").tobytes() + entries + bytes(4)


def stored(path, levels):
    if levels.dtype == np.uint32:
        path.write_bytes(tiff32(levels))
    else:
        assert cv2.imwrite(str(path), levels)
    return path


@pytest.mark.parametrize("kind", RAW)
@pytest.mark.filterwarnings("error")
def test_raw_levels_of_every_depth_fill_the_grey_levels(tmp_path, kind):
    low, high = RAW[kind]
    levels = (low + GREY / 255 * (high - low)).astype(kind)
    graded = read_graded(stored(tmp_path / "a.tif", levels))
    assert graded.levels == "percentile"
    assert graded.image.dtype == np.float32
    assert np.abs(graded.image - GREY).max() < 4
    given = read_graded(tmp_path / "a.tif", levels=(low, high))
    assert (given.levels, given.low, given.high) == ("given", low, high)
    assert np.abs(given.image - GREY).max() < 0.5


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [256, 257])
def test_8_bits_in_16_stay_what_they_are(tmp_path, factor):
    levels = (GREY / 4).astype(np.uint16) * factor
    graded = read_graded(stored(tmp_path / "a.png", levels))
    assert graded.levels == "full"
    assert np.abs(graded.image - (GREY / 4).astype(int)).max() < 1


def test_levels_can_be_asked_for():
    raw = np.array([[0, 100], [200, 65535]], np.uint16)
    assert grade(raw, "full").image[1].tolist() == [np.float32(200 / 257), 255]
    assert grade(raw, (100, 300)).image.tolist() == [[0, 0], [127.5, 255]]
    assert grade(np.array([[-32768, 32767]], np.int16), "full").image.tolist() == [[0, 255]]
    assert grade(np.array([[0.0, 0.5, 1.0]]), "full").image.tolist() == [[0, 127.5, 255]]
    assert grade(np.array([[50, 60, 70]], np.uint8), "percentile").image.tolist() == [[0, 127.5, 255]]


@pytest.mark.parametrize(
    ("raw", "levels", "message"),
    [
        ([[1.0, 2.0]], "full", "levels full needs integers, or floats of 0 to 1; found 1 to 2"),
        ([[1.0, 2.0]], "all", "levels must be full, percentile or two numbers, got 'all'"),
        ([[1.0, 2.0]], (5, 5), "levels must be two numbers, the lower first, got 5 and 5"),
        ([[1.0, 2.0]], (float("nan"), 5), "the lower first"),
        ([1.0, 2.0], None, r"raw must be real, \(height, width\), got float64 of shape \(2,\)"),
        ([[np.nan, np.nan]], None, "none of its levels is a number"),
    ],
)
def test_impossible_levels_are_refused(raw, levels, message):
    with pytest.raises(ValueError, match=message):
        grade(np.array(raw), levels)


def test_dead_pixels_decide_little_and_peaks_are_kept():
    scene = 7500 + RNG.integers(0, 100, (64, 80)).astype(np.float64)
    scene[30:32, 40:42] = 7800
    scene[30, 40] = 7850
    assert limits(scene) == (7500, 7850)
    scene[5, 5], scene[60, 70], scene[10, 10] = 0, 65535, np.nan
    low, high = limits(scene)
    assert 7300 < low <= 7500
    assert 7850 <= high < 8000
    assert grade(scene).image[10, 10] == 0


def test_a_picture_of_one_level_is_black_and_named(tmp_path):
    path = stored(tmp_path / "flat.png", np.full((9, 9), 8000, np.uint16))
    with pytest.warns(PictureWarning, match=r"flat.png: spans 0 % of its range of levels"):
        assert not read_image(path).any()


@pytest.mark.parametrize(
    ("levels", "narrow"), [(100 + GREY // 40, True), (100 + GREY // 10, False), (GREY, False)]
)
def test_a_picture_of_few_levels_is_named(tmp_path, levels, narrow):
    path = stored(tmp_path / "dull.png", levels.astype(np.uint8))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        read_image(path)
    assert [str(warning.message).split(": ")[0] for warning in said] == [str(path)] * narrow


def test_one_bright_target_is_no_narrow_picture(tmp_path):
    levels = np.full((64, 64), 40, np.uint8)
    levels[3:5, 6:8] = 200
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(stored(tmp_path / "sky.png", levels))


@pytest.mark.reference
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["raw14_in_16bit.png", "kelvin100_16bit.png", "celsius_float32.tif"])
def test_thermal_cases_look_as_their_8_bit_picture(reference_file, name):
    expected = read_image(reference_file("cases/vision/levels/ref_8bit.png")).astype(float)
    found = read_image(reference_file(f"cases/vision/levels/{name}"))
    assert found.max() == 255
    assert found.min() == 0
    assert np.unravel_index(found.argmax(), found.shape) == np.unravel_index(expected.argmax(), found.shape)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.999


@pytest.mark.reference
def test_thermal_cases_give_the_answer_of_their_8_bit_picture(reference_file):
    import torch

    from unfoldkit import rpcanet

    net = rpcanet.load_weights(reference_file("weights/rpcanet_sirst_official.pkl")).eval()

    def found(name):
        levels = torch.from_numpy(read_image(reference_file(f"cases/vision/levels/{name}")))
        return rpcanet.decompose(net, levels, 256).object[0, 0] > 0

    expected = found("ref_8bit.png")
    for name in ("raw14_in_16bit.png", "kelvin100_16bit.png", "celsius_float32.tif"):
        answer = found(name)
        assert (answer & expected).sum() / (answer | expected).sum() > 0.9


def test_a_data_set_is_read_with_the_levels_asked_for(tmp_path):
    for part, levels in (("images", 7300 + GREY), ("masks", GREY)):
        (tmp_path / "test" / part).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "test" / part / "a.png"), levels.astype(np.uint16))
    picture = open_pictures("folder", "test", tmp_path, levels=(7300, 7555))[0]
    assert np.abs(picture.image - GREY).max() < 1e-3
