"""Reading pictures of every kind, and saying what is wrong with those that cannot be read."""

import cv2
import numpy as np
import pytest
from PIL import Image

from unfoldkit.datasets import open_pictures, read_image, read_mask
from unfoldkit.datasets.reading.picture import with_mask

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 17), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 17, 3), dtype=np.uint8)


def save(path, pixels):
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "pgm"])
def test_8_bit_grey_is_kept(tmp_path, ending):
    assert np.array_equal(read_image(save(tmp_path / f"a.{ending}", GREY)), GREY)


@pytest.mark.filterwarnings("error")
def test_16_bit_grey_keeps_its_finer_levels(tmp_path):
    levels = RNG.integers(0, 65536, (12, 17), dtype=np.uint16)
    found = read_image(save(tmp_path / "a.png", levels))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, levels / 257, rtol=1e-6)


@pytest.mark.parametrize("pixels", [COLOUR, np.dstack([COLOUR, GREY])], ids=["colour", "alpha"])
def test_colour_becomes_luma(tmp_path, pixels):
    luma = COLOUR.astype(float) @ [0.114, 0.587, 0.299]
    assert (
        np.abs(read_image(save(tmp_path / "a.png", pixels)) - luma).max() < 2
    )  # decoders truncate and round the weights


def test_names_with_spaces_and_other_scripts(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "ein Bild – 图.png", GREY)), GREY)


def test_mask_is_what_is_above_half_of_its_largest_level(tmp_path):
    levels = np.array([[0, 1, 2], [127, 128, 255]], np.uint8)
    assert read_mask(save(tmp_path / "m.png", levels)).tolist() == [[0, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 20])
def test_unreadable_files_are_named(tmp_path, content):
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken.png: not a readable picture"):
        read_image(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.png: no such file"):
        read_image(tmp_path / "none.png")


def test_mask_in_other_proportions_is_named(tmp_path):
    image, mask = save(tmp_path / "a.png", GREY), save(tmp_path / "m.png", GREY[:5])
    with pytest.raises(
        ValueError, match=r"m.png: expected a mask in the proportions of .* 17x12 .* found 17x5"
    ):
        with_mask(read_image(image), mask, "a")


def test_mask_finer_than_its_picture_is_taken(tmp_path):
    image, mask = (
        save(tmp_path / "a.png", GREY),
        save(tmp_path / "m.png", np.kron(GREY, np.ones((2, 2), np.uint8))),
    )
    assert with_mask(read_image(image), mask, "a").mask.shape == (24, 34)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_grey_as_pillow_makes_it(tmp_path, ending):
    path = save(tmp_path / f"a.{ending}", COLOUR)
    with Image.open(path) as picture:
        assert np.array_equal(read_image(path, "pillow"), np.asarray(picture.convert("L")))
    with pytest.raises(ValueError, match="grey must be one of opencv, pillow, got 'red'"):
        read_image(path, "red")


@pytest.mark.reference
@pytest.mark.parametrize("name", ["chase_db1", "drive"])
def test_vessels_are_read_with_the_grey_of_pillow(reference_file, name):
    files = open_pictures(name, "test", reference_file(f"data/{name}"))
    with Image.open(files.pairs[0].image) as picture:
        expected = np.asarray(picture.convert("L"))
    assert np.array_equal(files[0].image, expected)
    decoded = open_pictures(name, "test", reference_file(f"data/{name}"), grey="opencv")[0].image
    assert (decoded != expected).any() == (name == "chase_db1")
