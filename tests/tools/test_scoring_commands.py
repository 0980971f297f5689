"""evaluate.py on saved predictions: every protocol, each picture's numbers, a curve, a field of view."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import csv
import json

import cv2
import numpy as np
import pytest

from unfoldkit.tools import evaluate, predict

MASKS = {"a": (slice(10, 14), slice(10, 14)), "b": (slice(20, 26), slice(5, 11))}


@pytest.fixture
def run(run):
    """A function that types a command: its exit status and all that it says."""

    def typed(tool, *arguments):
        status, out, err = run(tool, *arguments)
        return status, out + err

    return typed


def saved(path, levels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), levels)


@pytest.fixture
def data(tmp_path):
    """Pictures of 32x32 with one square object each: 16 pixels in a, 36 in b."""
    root = tmp_path / "data"
    for name, place in MASKS.items():
        mask = np.zeros((32, 32), np.uint8)
        mask[place] = 255
        saved(root / f"test/masks/{name}.png", mask)
        saved(root / f"test/images/{name}.png", mask // 2 + 40)
    return root


@pytest.fixture
def maps(tmp_path):
    """Probability maps as PNG: 0.8 on the object of a, 0.4 on that of b and 0.2 on its first row."""
    for name, place in MASKS.items():
        levels = np.zeros((32, 32), np.uint8)
        levels[place] = 204 if name == "a" else 102
        if name == "b":
            levels[20, 5:11] = 51
        saved(tmp_path / "maps" / f"{name}_probability.png", levels)
    return tmp_path / "maps"


def scored(run, data, maps, out, *options):
    given = ("--predictions", maps, "--dataset=folder", "--root", data, "--size=0", "--json", out)
    status, said = run(evaluate, *given, *options)
    assert status == 0, said
    return json.loads(out.read_text())


def test_the_threshold_replaces_the_protocols_rule(data, maps, tmp_path, run):
    """Pixels found: by each picture's largest, 16 + 30; above 0.1 all 16 + 36; above 0.3 16 + 30; above 0.5 16.

    Of vessels the number is the mean of the two pictures'.
    """
    for options, iou in (
        ((), 46 / 52),
        (("--threshold=0.1",), 1),
        (("--threshold=0.3",), 46 / 52),
        (("--threshold=0.5",), 16 / 52),
        (("--protocol=centroid",), 16 / 52),
        (("--protocol=vessel",), 1 / 2),
        (("--protocol=defect",), 46 / 52),
    ):
        assert scored(run, data, maps, tmp_path / "a.json", *options)["iou"] == pytest.approx(iou), options


def test_each_pictures_numbers_and_a_curve(data, maps, tmp_path, run):
    options = ("--threshold=0.5", "--csv", tmp_path / "each.csv", "--curve", tmp_path / "curve.csv")
    content = scored(run, data, maps, tmp_path / "a.json", *options)
    assert any("p > 0.5" in sentence for sentence in content["assumptions"])
    with (tmp_path / "each.csv").open() as file:
        rows = {row["picture"]: float(row["iou"]) for row in csv.DictReader(file)}
    assert rows == {"a": 1, "b": 0}
    with (tmp_path / "curve.csv").open() as file:
        curve = [{key: float(value or "nan") for key, value in row.items()} for row in csv.DictReader(file)]
    iou = {row["threshold"]: row["iou"] for row in curve}
    assert {"threshold", "iou", "pd", "fa"} <= set(curve[0])
    for threshold, value in iou.items():
        found = 52 if threshold < 0.2 else 46 if threshold < 0.4 else 16 if threshold < 0.8 else 0
        if min(abs(threshold - step) for step in (0.2, 0.4, 0.8)) > 0.01 and threshold > 0.01:
            assert value == pytest.approx(found / 52), threshold
    assert cv2.imread(str(tmp_path / "curve.png")) is not None


def test_the_folders_of_all_that_is_written_are_made(data, maps, tmp_path, run):
    written = [tmp_path / name for name in ("a/each.csv", "b/curve.csv", "c/numbers.json")]
    scored(run, data, maps, written[2], "--csv", written[0], "--curve", written[1])
    assert all(path.is_file() for path in (*written, tmp_path / "b/curve.png"))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--csv=a.csv", "--json=./a.csv"), "a.csv: --csv would overwrite what --json writes there"),
        (("--csv=a.png", "--curve=a.csv"), "a.png: the picture of --curve would overwrite what --csv writes"),
        (("--curve=a.png",), "a.png: the picture of --curve would overwrite what --curve writes there"),
        (("--json=.",), ".: a folder; --json expects a file to write"),
    ],
)
def test_files_that_would_be_lost_are_named_before_anything_is_evaluated(
    data, maps, tmp_path, run, monkeypatch, options, complaint
):
    monkeypatch.chdir(tmp_path)
    status, said = run(evaluate, "--predictions", maps, "--dataset=folder", "--root", data, *options)
    assert status == 2
    assert complaint in said
    assert not any(path.name.startswith("a.") for path in tmp_path.iterdir())


def test_predictions_of_a_network_at_256_ask_for_masks_at_256(data, maps, tmp_path, run):
    given = ("--predictions", maps, "--dataset=folder", "--root", data)
    status, said = run(evaluate, *given)
    assert status == 2
    assert "32x32" in said
    assert "256x256" in said
    assert "--size 0" in said
    for path in maps.iterdir():
        saved(path, cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (256, 256), interpolation=0))
    status, said = run(evaluate, *given)
    assert status == 0, said


def test_what_predict_saves_scores_as_the_method_itself(data, tmp_path, run):
    assert run(predict, data / "test/images", "--method=pcp", "--out", tmp_path / "saved")[0] == 0
    saved_maps = scored(run, data, tmp_path / "saved", tmp_path / "a.json", "--threshold=0.5")
    given = ("--method=pcp", "--dataset=folder", "--root", data, "--size=0", "--threshold=0.5")
    assert run(evaluate, *given, "--json", tmp_path / "b.json")[0] == 0
    itself = json.loads((tmp_path / "b.json").read_text())
    assert saved_maps["iou"] == pytest.approx(itself["iou"], abs=0.02)


def test_levels_that_are_ambiguous_are_refused(data, maps, run):
    for path in maps.iterdir():
        saved(path, np.full((32, 32), 37, np.uint8))
    status, said = run(evaluate, "--predictions", maps, "--dataset=folder", "--root", data, "--size=0")
    assert status == 2
    assert said.count("error:") == 1
    assert "--scale" in said or "scale" in said


@pytest.mark.parametrize(("options", "iou"), [((), 40 / 120), (("--field_of_view=true",), 40 / 60)])
def test_vessels_inside_the_field_of_view_alone(tmp_path, run, options, iou):
    """40 of 60 vessel pixels are found inside the field of view; the 60 outside are not vessels, but found."""
    vessels, found, field = (np.zeros((32, 64), np.uint8) for _ in range(3))
    field[:, :40] = 255
    vessels[4:7, 10:30] = 255
    found[4:6, 10:30] = 255
    found[20:23, 42:62] = 255
    test = tmp_path / "drive/test"
    saved(test / "images/01_test.tif", np.dstack([vessels // 2 + 40] * 3))
    saved(test / "1st_manual/01_manual1.png", vessels)
    saved(test / "mask/01_test_mask.png", field)
    saved(tmp_path / "maps/01_test.png", found)
    given = ("--predictions", tmp_path / "maps", "--dataset=drive", "--root", tmp_path / "drive")
    status, said = run(evaluate, *given, "--json", tmp_path / "a.json", *options)
    assert status == 0, said
    assert json.loads((tmp_path / "a.json").read_text())["iou"] == pytest.approx(iou)
