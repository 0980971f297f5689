"""Bad data: each fault is one clear error that names the file, or is left out, counted and listed."""

import cv2
import numpy as np
import pytest

from unfoldkit.datasets import open_pictures

FAULTS = {
    "corrupted": r"images/corrupted.png: not a readable picture",
    "truncated": r"images/truncated.png: not a readable picture",
    "other_size": r"masks/other_size.png: expected a mask in the proportions of .* 8x6 pixels, found 8x9",
    "no_mask": r"masks/no_mask.\*: no such file, which .*test.txt names",
    "no_image": r"images/no_image.\*: no such file, which .*test.txt names",
    "empty_mask": r"masks/empty_mask.png: the mask is empty",
}


def save(path, pixels):
    cv2.imwrite(str(path), pixels)


@pytest.fixture
def tree(tmp_path):
    """One good picture, and one for each fault; a function writes the split."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    levels = np.random.default_rng(0).integers(0, 255, (6, 8), dtype=np.uint8)
    for name in ("good", *FAULTS):
        save(images / f"{name}.png", levels)
        save(masks / f"{name}.png", np.eye(6, 8, dtype=np.uint8))
    (images / "corrupted.png").write_bytes(b"nothing")
    (images / "truncated.png").write_bytes((images / "truncated.png").read_bytes()[:40])
    save(masks / "other_size.png", np.eye(9, 8, dtype=np.uint8))
    (masks / "no_mask.png").unlink()
    (images / "no_image.png").unlink()
    save(masks / "empty_mask.png", np.zeros((6, 8), np.uint8))

    def with_split(*names):
        (tmp_path / "test.txt").write_text("\n".join(names))
        return tmp_path

    return with_split


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_clear_error(tree, fault):
    root = tree("good", fault)
    with pytest.raises((FileNotFoundError, ValueError), match=FAULTS[fault]):
        open_pictures("folder", "test", root)[1]


def test_skip_bad_counts_and_lists_them_all(tree):
    pictures = open_pictures("folder", "test", tree(*FAULTS, "good"), skip_bad=True)
    assert [picture.name for picture in pictures] == ["good"]
    assert len(pictures.skipped) == len(FAULTS)
    assert all(fault in said for fault, said in zip(FAULTS, pictures.skipped, strict=True))


def test_nothing_left_is_an_error(tree):
    with pytest.raises(ValueError, match=r"none of 1 pictures can be used; the first: .*corrupted.png"):
        open_pictures("folder", "test", tree("corrupted"), skip_bad=True)


def test_empty_masks_can_be_kept(tree):
    assert not open_pictures("folder", "test", tree("empty_mask"), keep_empty=True)[0].mask.any()


def test_pictures_without_partner_in_split_folders(tmp_path):
    for path in ("images/a.png", "images/b.png", "masks/b.png", "masks/c.png"):
        (tmp_path / "test" / path).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / "test" / path, np.eye(6, 8, dtype=np.uint8))
    with pytest.raises(FileNotFoundError, match=r"images/a.png: no mask of that name"):
        open_pictures("folder", "test", tmp_path)
    pictures = open_pictures("folder", "test", tmp_path, skip_bad=True)
    assert len(pictures) == 1
    assert "images/a.png: no mask" in pictures.skipped[0]
    assert "masks/c.png: no image" in pictures.skipped[1]


@pytest.mark.parametrize(
    ("content", "message"), [("\n", "the split is empty"), ("good\ngood\n", "'good' is named twice")]
)
def test_split_files(tree, content, message):
    with pytest.raises(ValueError, match=f"test.txt: .*{message}|test.txt: {message}"):
        open_pictures("folder", "test", tree(content))


def test_missing_split_names_those_there_are(tree):
    with pytest.raises(FileNotFoundError, match=r"no split file train.txt; splits found there: test"):
        open_pictures("folder", "train", tree("good"))


def test_two_lists_of_one_split(tree):
    root = tree("good")
    (root / "lists").mkdir()
    (root / "lists/test.txt").write_text("good")
    with pytest.raises(ValueError, match="a second list of the split 'test'"):
        open_pictures("folder", "test", root)
