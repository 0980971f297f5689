"""Names and paths as people have them: of split lists, of masks, in subfolders, beside rubbish."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import codecs
from pathlib import Path

import cv2
import numpy as np
import pytest

from unfoldkit.datasets import SegmentationDataset, open_pictures
from unfoldkit.datasets.files import read_names
from unfoldkit.datasets.inputs import inputs_in

LEVELS = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5


def place(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith((".png", ".jpg", ".bmp")):
            cv2.imwrite(str(root / path), LEVELS)
        else:
            (root / path).write_bytes(b"nothing to look at")
    return root


def names_in(root, split="test", name="folder"):
    return [picture.name for picture in open_pictures(name, split, root)]


@pytest.mark.parametrize(
    "content",
    [
        b"b\na",
        codecs.BOM_UTF8 + b"b\r\na\r\n",
        codecs.BOM_UTF16_LE + "b\r\na\r\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "b.png\na.png".encode("utf-16-be"),
        b"b.png\na.png",
        b"images/b.png\nimages/a.png",
        b"images/b\nimages/a",
        b"./images/b.png\n./images/a.png",
        rb"images\b.png" + b"\r\n" + rb"images\a.png",
        rb"D:\x\b.png" + b"\n" + rb"D:\x\a.png",
        b"/home/someone/set/images/b.png\n/home/someone/set/images/a.png",
        b"masks/b.png\nmasks/a.png",
        b"  b \n\n\ta\t\n",
        b"b.PNG\na.bmp",
    ],
)
def test_lists_of_every_kind_name_the_same_pictures(tmp_path, content):
    place(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "masks/b.png")
    (tmp_path / "test.txt").write_bytes(content)
    assert names_in(tmp_path) == ["b", "a"]


def test_one_picture_in_two_words_is_named_twice(tmp_path):
    place(tmp_path, "images/a.png", "masks/a.png")
    (tmp_path / "test.txt").write_text("a\nimages/a.png\n")
    with pytest.raises(ValueError, match=r"test.txt: 'a' is named twice, as 'a' and as 'images/a'"):
        names_in(tmp_path)


def test_names_keep_their_folders(tmp_path):
    (tmp_path / "names.txt").write_text("seq1\\000.png\nseq2/000\n")
    assert read_names(tmp_path / "names.txt") == ["seq1/000", "seq2/000"]


@pytest.mark.parametrize(
    "ending", ["", "_mask", "_GT", "_gt", "_pixels0", "_Mask", "-mask", "_label", "_labels", "_seg"]
)
@pytest.mark.parametrize("listed", [True, False])
def test_masks_are_called_after_their_pictures(tmp_path, ending, listed):
    parent = "" if listed else "test/"
    place(tmp_path, *(f"{parent}images/{name}.png" for name in ("a", "b_1")))
    place(tmp_path, *(f"{parent}masks/{name}{ending}.png" for name in ("a", "b_1")))
    if listed:
        (tmp_path / "test.txt").write_text("a\nb_1\n")
    assert names_in(tmp_path) == ["a", "b_1"]


def test_a_picture_may_itself_end_as_a_mask_does(tmp_path):
    place(tmp_path, "test/images/a_mask.png", "test/masks/a_mask.png")
    assert names_in(tmp_path) == ["a_mask"]


def test_two_masks_for_one_picture_are_refused(tmp_path):
    place(tmp_path, "test/images/a.png", "test/masks/a_mask.png", "test/masks/a_GT.png")
    with pytest.raises(ValueError, match=r"a_mask.png: a second mask for the picture 'a' beside a_GT.png"):
        names_in(tmp_path)


@pytest.mark.parametrize("listed", ["seq1/000\nseq2/000", "images/seq1/000.png\nimages\\seq2\\000.png"])
def test_pictures_in_subfolders(tmp_path, listed):
    place(tmp_path, *(f"{part}/seq{k}/000.png" for part in ("images", "masks") for k in (1, 2)))
    (tmp_path / "test.txt").write_text(listed)
    assert names_in(tmp_path) == ["seq1/000", "seq2/000"]
    (tmp_path / "test.txt").write_text("000")
    with pytest.raises(FileNotFoundError, match=r"000.\*: no such file, which .*test.txt names"):
        names_in(tmp_path)


def test_rubbish_between_pictures_is_passed_over(tmp_path):
    rubbish = ("._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", "readme.txt", ".hidden/b.png")
    for part in ("test/images", "test/masks"):
        place(tmp_path, f"{part}/a.png", *(f"{part}/{name}" for name in rubbish))
        place(tmp_path, f"{part}/__MACOSX/c.png")
    assert names_in(tmp_path) == ["a"]
    assert list(inputs_in([tmp_path / "test/images"])) == ["a"]


@pytest.mark.parametrize("ending", [".JPG", ".jpg", ".Jpeg"])
def test_chase_db1_in_either_case(tmp_path, ending):
    for number in range(1, 15):
        for eye in "LR":
            place(tmp_path, f"Image_{number:02d}{eye}_1stHO.png", f"Image_{number:02d}{eye}_2ndHO.png")
            content = cv2.imencode(".jpg", LEVELS)[1].tobytes()
            (tmp_path / f"Image_{number:02d}{eye}{ending}").write_bytes(content)
    assert names_in(tmp_path, name="chase_db1") == [f"Image_{k}{eye}" for k in range(11, 15) for eye in "LR"]
    assert names_in(tmp_path) == names_in(tmp_path, name="chase_db1")


def test_inputs_are_pictures_and_videos_in_and_below_folders(tmp_path):
    place(tmp_path, "b.png", "seq1/000.png", "seq2/000.png", "seq2/film.AVI", "deep/er/a.JPG", "notes.txt")
    assert inputs_in([tmp_path]) == {
        "b": tmp_path / "b.png",
        "deep/er/a": tmp_path / "deep/er/a.JPG",
        "seq1/000": tmp_path / "seq1/000.png",
        "seq2/000": tmp_path / "seq2/000.png",
        "seq2/film": tmp_path / "seq2/film.AVI",
    }
    assert list(inputs_in([tmp_path / "seq2/film.AVI", tmp_path / "seq1"])) == ["film", "000"]


def test_results_of_an_earlier_run_are_no_inputs(tmp_path, monkeypatch):
    place(tmp_path, "in/b.png", "in/out/b_mask.png", "in/out/c/d.png", "in/outer/e.png")
    (tmp_path / "link").symlink_to(tmp_path / "in/out")
    monkeypatch.chdir(tmp_path / "in")
    for folder, out in ((tmp_path / "in", tmp_path / "link"), (".", "out"), ("../in", "../in/out/")):
        assert list(inputs_in([folder], out)) == ["b", "outer/e"]
    assert list(inputs_in(["out/c", "out/b_mask.png"], "out")) == ["d", "b_mask"]  # asked for by name
    assert list(inputs_in(["outer"], "out")) == ["e"]
    with pytest.raises(ValueError, match=r"out: holds the pictures to look at; choose another --out"):
        inputs_in([tmp_path / "in/out"], "../link")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["none"], "none: no such file or folder; expected pictures or videos"),
        (["empty"], "empty: no pictures or videos; expected files ending in .png, .*, .avi"),
        (["seq1", "seq2/000.png"], r"000.png: its results would overwrite those of .*000.png"),
        (["twice"], r"a.png: its results would overwrite those of .*a.jpg"),
    ],
)
def test_inputs_that_cannot_be_told_apart_or_are_none(tmp_path, inputs, message):
    place(tmp_path, "seq1/000.png", "seq2/000.png", "empty/notes.txt", "twice/a.png", "twice/a.jpg")
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        inputs_in([tmp_path / name for name in inputs])


def test_a_link_out_of_a_folder_of_inputs_is_refused(tmp_path):
    place(tmp_path, "secret.png", "in/a.png")
    (tmp_path / "in/link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(ValueError, match=r"link.png: a link out of"):
        inputs_in([tmp_path / "in"])


def test_linked_folders_of_inputs_are_followed_within_them(tmp_path):
    place(tmp_path, "in/a.png", "in/seq/000.png", "in/seq/deep/b.png", "else/c.png", "results/a_mask.png")
    (tmp_path / "in/other").symlink_to("seq")
    names = ["a", "other/000", "other/deep/b", "seq/000", "seq/deep/b"]
    assert list(inputs_in([tmp_path / "in"])) == names
    (tmp_path / "in/out").symlink_to(tmp_path / "results")
    assert list(inputs_in([tmp_path / "in"], tmp_path / "in/out")) == names
    with pytest.raises(ValueError, match=r"in/out: a link out of .*in; expected the folder itself"):
        inputs_in([tmp_path / "in"])


@pytest.mark.parametrize(
    ("links", "found"),
    [
        ({"a/up": ".."}, "a/up"),
        ({"a/same": "../a"}, "a/same"),
        ({"a/b": "../b", "b/a": "../a"}, "a/b/a"),
    ],
)
def test_linked_folders_in_a_ring_are_refused(tmp_path, links, found):
    place(tmp_path, "in/a/0.png", "in/b/1.png")
    for link, target in links.items():
        (tmp_path / "in" / link).symlink_to(target)
    with pytest.raises(ValueError, match=rf"in/{found}: a link to a folder that it lies in"):
        inputs_in([tmp_path / "in"])


@pytest.mark.reference
@pytest.mark.parametrize("name", ["list_posix_path_noext", "list_win_path", "list_win_rel"])
def test_the_list_cases(reference_file, name):
    assert names_in(reference_file(f"cases/vision/lists/{name}")) == ["s0", "s1", "s2", "s3"]


@pytest.mark.reference
@pytest.mark.parametrize(
    "name", ["plain", "suffix_mask", "with_rubbish", "jpeg_masks", "masks_64", "subfolders"]
)
def test_the_masks_of_the_folder_cases_are_their_targets_of_16_pixels(reference_file, name):
    root = reference_file(f"cases/vision/folders/{name}")
    in_subfolders = [f"seq{k}/{n:03d}" for k in (1, 2) for n in range(3)]
    assert names_in(root) == (in_subfolders if name == "subfolders" else [f"s{k}" for k in range(10)])
    assert list(inputs_in([root / "test/images"])) == names_in(root)
    samples = SegmentationDataset(open_pictures("folder", "test", root), size=None)
    for image, mask, _ in (samples[k] for k in range(len(samples))):
        assert set(mask.unique().tolist()) == {0, 1}
        assert mask.sum() == 16
        assert (image[mask > 0].mean() - image.mean()) * 255 > 80


@pytest.mark.reference
def test_a_folder_of_videos_is_an_input(reference_file):
    videos = reference_file("cases/vision/video")
    assert {Path(name).name for name in inputs_in([videos])} == {"ffv1_16bit", "grey_mjpg", "trunc"}
