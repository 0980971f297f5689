"""prepare_data.py: what it says of good copies, of bad ones, and of data sets it has not seen."""

import shutil
import sys

import cv2
import numpy as np
import pytest

from unfoldkit.datasets.records import RECORDS
from unfoldkit.tools import prepare_data


def run(monkeypatch, capsys, *arguments):
    """The exit status and what was printed, in one line each."""
    monkeypatch.setattr(sys, "argv", ["prepare_data.py", *map(str, arguments)])
    status = 0
    try:
        prepare_data.main()
    except SystemExit as ended:
        status = ended.code
    printed = capsys.readouterr()
    return status, " ".join((printed.out + printed.err).split())


@pytest.fixture
def drive(tmp_path):
    """DRIVE as published, 20 + 20 pictures, at another size."""
    rng = np.random.default_rng(0)
    for folder, first in (("training", 21), ("test", 1)):
        for part in ("images", "1st_manual"):
            (tmp_path / folder / part).mkdir(parents=True)
        for number in range(first, first + 20):
            picture = rng.integers(0, 255, (12, 10, 3), dtype=np.uint8)
            cv2.imwrite(str(tmp_path / folder / f"images/{number:02d}_{folder}.tif"), picture)
            mask = tmp_path / folder / f"1st_manual/{number:02d}_manual1.png"
            cv2.imwrite(str(mask), 255 * (picture[..., 0] > 128).astype(np.uint8))
    return tmp_path


def test_a_good_copy(drive, monkeypatch, capsys):
    status, said = run(monkeypatch, capsys, "drive", "--root", drive)
    assert status == 0
    assert "All is well." in said
    assert "10x12 (20)" in said
    assert "0, 255 (20)" in said


def test_every_fault_is_listed(drive, monkeypatch, capsys):
    images, masks = drive / "test/images", drive / "test/1st_manual"
    shutil.copy(drive / "training/images/21_training.tif", images / "01_test.tif")
    (images / "02_test.tif").write_bytes(b"nothing")
    cv2.imwrite(str(masks / "03_manual1.png"), np.ones((12, 20), np.uint8))
    cv2.imwrite(str(masks / "04_manual1.png"), np.zeros((12, 10), np.uint8))
    (masks / "05_manual1.png").unlink()
    (drive / "training/images/40_training.tif").unlink()
    (drive / "training/1st_manual/40_manual1.png").unlink()
    status, said = run(monkeypatch, capsys, "drive", "--root", drive)
    assert status == 1
    for fault in (
        "19 pictures in train, 20 are published",
        "picture '01_test' of test is also in train, as '21_training'",
        "02_test.tif: not a readable picture",
        "03_manual1.png: expected a mask in the proportions of its picture's 10x12 pixels, found 20x12",
        "04_manual1.png: the mask is empty",
        "05_test.tif: no mask of that name",
    ):
        assert fault in said


def test_masks_and_repeats_that_need_not_be_wrong_are_said(drive, monkeypatch, capsys):
    images, masks = drive / "test/images", drive / "test/1st_manual"
    cv2.imwrite(
        str(masks / "01_manual1.png"), 60 * np.eye(12, 10, dtype=np.uint8) + np.eye(12, 10, 2, np.uint8)
    )
    cv2.imwrite(str(masks / "02_manual1.png"), 255 * np.eye(24, 20, dtype=np.uint8))
    shutil.copy(images / "03_test.tif", images / "04_test.tif")
    cv2.imwrite(str(images / "05_test.tif"), np.tile(np.arange(100, 110, dtype=np.uint8), (12, 1)))
    status, said = run(monkeypatch, capsys, "drive", "--root", drive)
    assert status == 0
    assert "test: 1 masks are not two-level: 01_test" in said
    assert "test: 1 masks are of another size than their picture: 02_test (20x24 for 10x12)" in said
    assert "test: 1 pictures are repeated: 04_test is 03_test" in said
    assert "test: 1 pictures span under 5 % of their range of levels: 05_test" in said


def test_masks_that_cannot_be_meant_are_faults(drive, monkeypatch, capsys):
    masks = drive / "test/1st_manual"
    full = np.full((12, 10), 255, np.uint8)
    cv2.imwrite(str(masks / "01_manual1.png"), full)
    cv2.imwrite(str(masks / "02_manual1.png"), np.dstack([full, full, full, np.eye(12, 10, dtype=np.uint8)]))
    for number in range(21, 41):
        mask = drive / f"training/1st_manual/{number}_manual1.png"
        cv2.imwrite(str(mask), 255 - 255 * np.eye(12, 10, dtype=np.uint8))
    status, said = run(monkeypatch, capsys, "drive", "--root", drive)
    assert status == 1
    assert "01_manual1.png: the mask is full" in said
    assert "02_manual1.png: the mask is transparent" in said
    assert "training/1st_manual: the masks look inverted, 20 of 20" in said


def test_a_missing_split_is_a_fault(drive, monkeypatch, capsys):
    shutil.rmtree(drive / "test")
    status, said = run(monkeypatch, capsys, "drive", "--root", drive)
    assert status == 1
    assert "no split 'test'; folders found there: training" in said


def test_a_folder_may_have_any_splits(drive, monkeypatch, capsys):
    shutil.rmtree(drive / "training")
    assert run(monkeypatch, capsys, "folder", "--root", drive)[0] == 0


def test_a_split_that_cannot_be_opened_is_a_fault_of_a_folder_too(drive, monkeypatch, capsys):
    shutil.rmtree(drive / "training/1st_manual")
    status, said = run(monkeypatch, capsys, "folder", "--root", drive)
    assert status == 1
    assert said.count(f"{drive / 'training/1st_manual'}: no such folder") == 1


def test_pictures_of_train_are_not_counted_again_as_trainval(drive, monkeypatch, capsys):
    shutil.copy(drive / "training/images/21_training.tif", drive / "test/images/01_test.tif")
    (drive / "training/images/22_training.tif").write_bytes(b"nothing")
    status, said = run(monkeypatch, capsys, "folder", "--root", drive)
    assert status == 1
    assert said.count("22_training.tif: not a readable picture") == 1
    assert said.count("picture '01_test' of test is also in train") == 1
    assert "trainval" not in said


def test_a_trainval_of_more_than_train_and_val_is_read(drive, monkeypatch, capsys):
    shutil.copytree(drive / "training", drive / "trainval")
    shutil.copy(drive / "test/images/02_test.tif", drive / "trainval/images/21_training.tif")
    status, said = run(monkeypatch, capsys, "folder", "--root", drive)
    assert status == 1
    assert "picture '02_test' of test is also in trainval, as '21_training'" in said


@pytest.mark.parametrize("name", RECORDS)
def test_each_data_set_is_described(name, monkeypatch, capsys):
    status, said = run(monkeypatch, capsys, name)
    assert status == 0
    for part in ("Get it from", "Expected", "{train,trainval,val,test}/{images,masks}", f"{name} --root DIR"):
        assert part in said


def test_all_data_sets_are_listed(monkeypatch, capsys):
    status, said = run(monkeypatch, capsys)
    assert status == 0
    assert all(data.title.split("-")[0] in said for data in RECORDS.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["coco"], "name must be one of sirst"),
        (["folder"], "--root is missing"),
        (["drive", "--root", "nowhere"], "nowhere"),
    ],
)
def test_what_is_no_data_set_is_one_line_and_status_2(arguments, message, monkeypatch, capsys):
    status, said = run(monkeypatch, capsys, *arguments)
    assert status == 2
    assert message in said


@pytest.mark.reference
@pytest.mark.parametrize("name", ["sirst", pytest.param("neu_seg", marks=pytest.mark.slow)])
def test_the_real_copies(name, reference_file, monkeypatch, capsys):
    assert run(monkeypatch, capsys, name, "--root", reference_file(f"data/{name}"))[0] == 0
