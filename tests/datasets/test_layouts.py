"""Data sets on disk: each published layout, and what is said where something is missing."""

import cv2
import numpy as np
import pytest

from datasets import open_pictures


def save(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((6, 8), 9, np.uint8))


@pytest.fixture
def sirst(tmp_path):
    for name in ("Misc_1", "Misc_2"):
        save(tmp_path / f"images/{name}.png", tmp_path / f"masks/{name}_pixels0.png")
    (tmp_path / "idx_427").mkdir()
    (tmp_path / "idx_427/test.txt").write_text("Misc_2\nMisc_1")
    return tmp_path


def test_sirst_in_the_order_of_its_split(sirst):
    assert [picture.name for picture in open_pictures("sirst", "test", sirst)] == ["Misc_2", "Misc_1"]


def test_sirst_unknown_split_names_those_there_are(sirst):
    with pytest.raises(FileNotFoundError, match=r"train.txt: no such split file; .* there: test"):
        open_pictures("sirst", "train", sirst)


@pytest.mark.parametrize("gone", ["images/Misc_1.png", "masks/Misc_1_pixels0.png"])
def test_sirst_missing_file(sirst, gone):
    (sirst / gone).unlink()
    with pytest.raises(FileNotFoundError, match=f"{gone}: no such file, which idx_427/test.txt asks for"):
        open_pictures("sirst", "test", sirst)


def test_empty_split(sirst):
    (sirst / "idx_427/test.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"test.txt: the split is empty"):
        open_pictures("sirst", "test", sirst)


def test_name_given_twice(sirst):
    (sirst / "idx_427/test.txt").write_text("Misc_1\nMisc_1\n")
    with pytest.raises(ValueError, match="'Misc_1' is named twice"):
        open_pictures("sirst", "test", sirst)


@pytest.mark.reference
def test_real_sirst(reference_file):
    root = reference_file("data/sirst")
    counts = {
        split: len(open_pictures("sirst", split, root)) for split in ("trainval", "train", "val", "test")
    }
    assert counts == {"trainval": 341, "train": 256, "val": 85, "test": 86}


def test_folder_with_a_folder_for_each_split(tmp_path):
    save(tmp_path / "train/images/b.png", tmp_path / "train/masks/b.bmp")
    save(tmp_path / "train/images/a.tif", tmp_path / "train/masks/a.png")
    assert [picture.name for picture in open_pictures("folder", "train", tmp_path)] == ["a", "b"]


def test_folder_with_a_split_file(tmp_path):
    for name in "abc":
        save(tmp_path / f"images/{name}.png", tmp_path / f"masks/{name}.png")
    (tmp_path / "val.txt").write_text("c\na\n")
    assert [picture.name for picture in open_pictures("folder", "val", tmp_path)] == ["c", "a"]
    (tmp_path / "val.txt").write_text("d\n")
    with pytest.raises(FileNotFoundError, match=r"no picture 'd', which val.txt names"):
        open_pictures("folder", "val", tmp_path)


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["test/images/a.png"], r"masks: no such folder"),
        (["test/images/a.png", "test/masks/b.png"], r"images/a.png: no mask of that name"),
        (
            ["test/images/a.png", "test/masks/a.png", "test/masks/b.png"],
            r"masks/b.png: no image of that name",
        ),
        (["test/images/a.png", "test/images/a.bmp", "test/masks/a.png"], "a second picture named 'a'"),
        (["other/a.png"], "expected test/images and test/masks, or images, masks and test.txt"),
    ],
)
def test_folder_with_a_fault(tmp_path, there, message):
    save(*(tmp_path / path for path in there))
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        open_pictures("folder", "test", tmp_path)


def test_folder_without_pictures(tmp_path):
    (tmp_path / "test/images").mkdir(parents=True)
    with pytest.raises(ValueError, match="images: no pictures; expected files ending in"):
        open_pictures("folder", "test", tmp_path)


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        ("coco", None, "name must be one of synthetic, sirst, folder"),
        ("sirst", None, "root is missing"),
        ("sirst", "nowhere", "nowhere: no such folder; expected the root"),
    ],
)
def test_wrong_arguments(name, root, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        open_pictures(name, "test", root)
