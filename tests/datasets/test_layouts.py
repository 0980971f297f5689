"""Data sets on disk: each published layout in its own byte formats, and what is said of a missing part."""

import gzip
import random

import cv2
import numpy as np
import pytest
from PIL import Image

from unfoldkit.datasets import NAMES, PUBLISHED, open_pictures
from unfoldkit.datasets.catalogue import find_pairs, layout_of
from unfoldkit.datasets.files import read_names
from unfoldkit.datasets.layouts import SPLIT_FILES, SPLIT_FOLDERS

LEVELS = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) + 9
MASK = (LEVELS % 5 == 0).astype(np.uint8)


def place(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def image(path, pixels=LEVELS):
    cv2.imwrite(str(place(path)), pixels)


def mask(path, value=255):
    image(path, MASK * value)


def palette(path, colours):
    """A picture that holds MASK as indices into a palette."""
    indexed = Image.fromarray(MASK, mode="P")
    indexed.putpalette([level for colour in colours for level in colour])
    indexed.save(place(path))


def sirst(root):
    for name in ("Misc_1", "Misc_2"):
        image(root / f"images/{name}.png")
        mask(root / f"masks/{name}_pixels0.png")
    place(root / "idx_427/test.txt").write_text("Misc_2\nMisc_1")


def nudt_sirst(root):
    for name in ("000001", "000002"):
        image(root / f"images/{name}.png")
        mask(root / f"masks/{name}.png")
    place(root / "50_50/train.txt").write_text("000002\n")
    (root / "50_50/test.txt").write_text("000001\n")


def irstd_1k(root):
    for name in ("XDU0", "XDU1"):
        image(root / f"images/{name}.png")
        palette(root / f"masks/{name}.png", [(0, 0, 0), (0, 0, 1)])
    place(root / "img_idx/train_IRSTD-1K.txt").write_text("XDU0.png\n")
    (root / "img_idx/test_IRSTD-1K.txt").write_text("XDU1.png\n")


def irstd_1k_as_met(root):
    for name in ("XDU0", "XDU1", "XDU2"):
        image(root / f"IRSTD1k_Img/{name}.png", LEVELS[..., None].repeat(3, axis=2))
        mask(root / f"IRSTD1k_Label/{name}.png")
    (root / "trainval.txt").write_text("XDU0\nXDU2\n")
    (root / "test.txt").write_text("XDU1\n")


def sirst_v2(root):
    for name in ("Misc_1", "S2_3", "iraytek-96"):
        image(root / f"mixed/{name}.png")
        mask(root / f"annotations/masks/{name}_pixels0.png")
        place(root / f"annotations/bboxes/{name}.xml").write_text("<annotation/>")
    for split, names in (("trainval", "Misc_1\nS2_3"), ("test", "iraytek-96"), ("train", "S2_3")):
        place(root / f"splits/{split}_full.txt").write_text(names)
        (root / f"splits/{split}_v1fullv2target.txt").write_text("Misc_1")


def sirst_aug(root):
    for split in ("trainval", "test"):
        image(root / split / "images/000000.png")
        mask(root / split / "masks/000000.png")


def drive(root):
    for folder, name in (("training", "21_training"), ("test", "01_test")):
        levels = (LEVELS.astype(np.uint16) * 257)[..., None].repeat(3, axis=2)
        image(root / folder / "images" / f"{name}.tif", levels)
        palette(root / folder / "1st_manual" / f"{name[:2]}_manual1.gif", [(0, 0, 0), (255, 255, 255)])
        mask(root / folder / "mask" / f"{name}_mask.png")


def stare(root):
    for name in (*read_names(SPLIT_FILES / "stare_train.txt"), *read_names(SPLIT_FILES / "stare_test.txt")):
        _, content = cv2.imencode(".ppm", LEVELS[..., None].repeat(3, axis=2))
        place(root / f"stare-images/{name}.ppm.gz").write_bytes(gzip.compress(content.tobytes()))
        image(root / f"labels-ah/{name}.ah.ppm", (MASK * 255)[..., None].repeat(3, axis=2))


def chase_db1(root):
    for name in (f"Image_{number:02d}{eye}" for number in range(1, 15) for eye in "LR"):
        image(root / f"{name}.jpg")
        mask(root / f"{name}_1stHO.png")
        mask(root / f"{name}_2ndHO.png")


def neu_seg(root):
    for split, name in (("training", "000201"), ("test", "000001")):
        image(root / f"images/{split}/{name}.jpg")
        mask(root / f"annotations/{split}/{name}.png", value=3)


def sd_saliency_900(root):
    for name in (f"{kind}_{number}" for kind in ("In", "Pa", "Sc") for number in range(1, 301)):
        image(root / f"Source Images/{name}.bmp")
        mask(root / f"Ground truth/{name}.png")


TREES = {
    tree.__name__: tree
    for tree in (sirst, nudt_sirst, irstd_1k, sirst_aug, drive, stare, chase_db1, neu_seg, sd_saliency_900)
}


@pytest.mark.parametrize("name", TREES)
def test_published_layout_is_read_and_recognised_on_sight(tmp_path, name):
    TREES[name](tmp_path)
    pictures = open_pictures(name, "test", tmp_path)
    assert list(pictures.pairs) == list(open_pictures("folder", "test", tmp_path).pairs)
    for picture in (pictures[0], pictures[len(pictures) - 1]):
        assert np.abs(picture.image - LEVELS.astype(float)).max() <= (
            3 if name in ("chase_db1", "neu_seg") else 1
        )
        assert np.array_equal(picture.mask, MASK)


@pytest.mark.parametrize(
    ("name", "tree", "train"),
    [("irstd_1k", irstd_1k_as_met, ["XDU0", "XDU2"]), ("sirst_v2", sirst_v2, ["Misc_1", "S2_3"])],
)
def test_layouts_as_most_people_have_them(tmp_path, name, tree, train):
    tree(tmp_path)
    for known in (name, "folder"):
        assert [pair.name for pair in find_pairs(known, "trainval", tmp_path)] == train
        pictures = open_pictures(known, "test", tmp_path)
        assert len(pictures) == 1
        assert np.array_equal(pictures[0].image, LEVELS)
        assert np.array_equal(pictures[0].mask, MASK)


def annotated(root):
    """What tools for COCO leave beside the pictures."""
    place(root / "annotations/instances_train.json").write_text("{}")
    place(root / "annotations/train/a.xml").write_text("<annotation/>")


@pytest.mark.parametrize("name", ["sirst", "nudt_sirst", "folder"])
def test_annotations_beside_masks_make_no_neu_seg(tmp_path, name):
    sirst(tmp_path)
    annotated(tmp_path)
    assert [pair.name for pair in find_pairs(name, "test", tmp_path)] == ["Misc_2", "Misc_1"]


@pytest.mark.parametrize("name", ["sirst", "folder"])
def test_pictures_and_masks_each_by_split(tmp_path, name):
    annotated(tmp_path)
    for split in ("train", "val", "test"):
        image(tmp_path / f"images/{split}/{split}_1.png")
        mask(tmp_path / f"masks/{split}/{split}_1.png")
    assert [pair.name for pair in find_pairs(name, "val", tmp_path)] == ["val_1"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_layout_of_the_rpcanet_authors_serves_every_data_set(tmp_path, name):
    for split, stem in (("train", "a"), ("test", "b")):
        image(tmp_path / split / f"images/{stem}.png")
        mask(tmp_path / split / f"masks/{stem}.bmp")
    assert [pair.name for pair in find_pairs(name, "test", tmp_path)] == ["b"]
    assert [pair.name for pair in find_pairs(name, "trainval", tmp_path)] == ["a"]


@pytest.mark.parametrize("name", TREES)
def test_train_and_test_share_no_picture(tmp_path, name):
    TREES[name](tmp_path)
    if name == "sirst":
        (tmp_path / "idx_427/trainval.txt").write_text("Misc_1\n")
        (tmp_path / "idx_427/test.txt").write_text("Misc_2\n")
    train, test = (
        {pair.image for pair in find_pairs(name, split, tmp_path)} for split in ("trainval", "test")
    )
    assert train
    assert test
    assert not train & test


def test_splits_that_no_one_published_are_explicit():
    counts = {path.stem: len(read_names(path)) for path in SPLIT_FILES.glob("*.txt")}
    assert counts == {
        "stare_train": 16,
        "stare_test": 4,
        "chase_db1_train": 20,
        "chase_db1_test": 8,
        "sd_saliency_900_train": 720,
        "sd_saliency_900_test": 180,
    }


def test_the_saliency_split_is_drawn_from_seed_42():
    draw, expected = random.Random(42), []
    for kind in ("In", "Pa", "Sc"):
        names = [f"{kind}_{number}" for number in range(1, 301)]
        chosen = set(draw.sample(names, 60))
        expected += [name for name in names if name in chosen]
    assert read_names(SPLIT_FILES / "sd_saliency_900_test.txt") == expected


def test_a_split_of_ones_own_comes_before_the_one_of_this_package(tmp_path):
    chase_db1(tmp_path)
    (tmp_path / "test.txt").write_text("Image_01L\n")
    assert [pair.name for pair in find_pairs("chase_db1", "test", tmp_path)] == ["Image_01L"]


def test_another_data_set_is_told_apart(tmp_path):
    neu_seg(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"expected .*1st_manual.* found images/\{training,test\}"):
        open_pictures("drive", "test", tmp_path)


def test_order_is_that_of_the_split(tmp_path):
    sirst(tmp_path)
    assert [picture.name for picture in open_pictures("sirst", "test", tmp_path)] == ["Misc_2", "Misc_1"]


@pytest.mark.reference
def test_real_sirst(reference_file):
    root = reference_file("data/sirst")
    counts = {
        split: len(open_pictures("sirst", split, root)) for split in ("trainval", "train", "val", "test")
    }
    assert counts == {"trainval": 341, "train": 256, "val": 85, "test": 86}


@pytest.mark.reference
@pytest.mark.parametrize("step", [50, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "whole"])
def test_real_neu_seg_loads(step, reference_file):
    root = reference_file("data/neu_seg")
    for split, count in (("train", 3630), ("test", 840)):
        pictures = open_pictures("neu_seg", split, root)
        assert len(pictures) == count
        for image, mask, _ in (pictures[index] for index in range(0, count, step)):
            assert image.shape == mask.shape == (200, 200)
            assert mask.any()


def test_folder_with_a_folder_for_each_split(tmp_path):
    image(tmp_path / "train/images/b.png")
    mask(tmp_path / "train/masks/b.bmp")
    image(tmp_path / "train/images/a.tif")
    mask(tmp_path / "train/masks/a.png")
    assert layout_of("folder", tmp_path) is SPLIT_FOLDERS
    assert [picture.name for picture in open_pictures("folder", "train", tmp_path)] == ["a", "b"]


def test_folder_with_a_split_file(tmp_path):
    for name in "abc":
        image(tmp_path / f"images/{name}.png")
        mask(tmp_path / f"masks/{name}.png")
    (tmp_path / "val.txt").write_text("c\na\n")
    assert [picture.name for picture in open_pictures("folder", "val", tmp_path)] == ["c", "a"]


@pytest.mark.parametrize(
    ("there", "message"),
    [
        (["test/images/a.png"], r"masks: no such folder"),
        (["test/images/a.png", "test/images/a.bmp", "test/masks/a.png"], "a second picture named 'a'"),
        (["other/a.png"], r"expected .*SPLIT.txt.*\{images,masks\}.* found other"),
        (["train/images/a.png", "train/masks/a.png"], "no split 'test'; folders found there: train"),
    ],
)
def test_folder_with_a_fault(tmp_path, there, message):
    for path in there:
        image(tmp_path / path)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        open_pictures("folder", "test", tmp_path)


def test_folder_without_pictures(tmp_path):
    (tmp_path / "test/images").mkdir(parents=True)
    with pytest.raises(ValueError, match="images: no pictures; expected files ending in"):
        open_pictures("folder", "test", tmp_path)


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        ("coco", None, f"name must be one of {', '.join(NAMES)}"),
        ("sirst", None, "root is missing"),
        ("sirst", "nowhere", "nowhere: no such folder; expected the root"),
    ],
)
def test_wrong_arguments(name, root, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        open_pictures(name, "test", root)
