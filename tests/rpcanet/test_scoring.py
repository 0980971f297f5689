"""Predictions from files: the right file, the right range, and the same numbers as of the maps themselves."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import csv

import cv2
import numpy as np
import pytest
import torch
from scipy.io import savemat

from unfoldkit.common.figures import save_figure
from unfoldkit.datasets import Picture
from unfoldkit.rpcanet.inference.saved_maps import read_map
from unfoldkit.rpcanet.inference.scoring import curve_figure, score_predictions
from unfoldkit.rpcanet.metrics import PROTOCOLS, PictureRows, ThresholdCurve, protocol
from unfoldkit.rpcanet.metrics.rows import write_csv

NAMES = ("a", "b", "c.1")
MASKS = np.zeros((3, 24, 30), np.uint8)
MASKS[0, 3:6, 4:7] = MASKS[0, 15:18, 20:24] = MASKS[1, 8:10, 8:10] = 1
SAMPLES = [Picture(255 * mask, mask, name) for name, mask in zip(NAMES, MASKS, strict=True)]
NOISE = np.random.default_rng(0).random(MASKS.shape)
LEVELS = np.rint(255 * np.clip(0.45 * MASKS + 0.6 * NOISE, 0, 1)).astype(np.uint8)
LEVELS[0, 4, 5] = 255  # the range is used
FOUND = (LEVELS > 150).astype(np.uint8)


def npy(path, array):
    np.save(path.with_suffix(".npy"), array)


def mat(path, array):
    savemat(path.with_suffix(".mat"), {"T": array})


def picture(ending):
    return lambda path, array: cv2.imwrite(f"{path}{ending}", array)


def saved(folder, arrays, write=npy, suffix=""):
    folder.mkdir(exist_ok=True)
    for name, array in zip(NAMES, arrays, strict=True):
        write(folder / f"{name.replace('.', '_')}{suffix}", array)
    return folder


@pytest.fixture(autouse=True)
def plain_names(monkeypatch):
    """The third picture's dot is a matter of the test of names alone."""
    samples = [sample._replace(name=sample.name.replace(".", "_")) for sample in SAMPLES]
    monkeypatch.setitem(globals(), "SAMPLES", samples)


def direct(probability, name="overlap", threshold=None):
    metrics = protocol(name, threshold)
    metrics.update(torch.from_numpy(probability)[:, None].float(), torch.from_numpy(MASKS)[:, None])
    return {key: value.item() for key, value in metrics.compute().items() if value.ndim == 0}


MAPS = {
    "uint8 png": (picture(".png"), LEVELS),
    "uint8 tiff": (picture(".tiff"), LEVELS),
    "uint16 png": (picture(".png"), LEVELS.astype(np.uint16) * 257),
    "uint16 png of 8-bit levels": (picture(".png"), LEVELS.astype(np.uint16)),
    "colour png of grey": (picture(".png"), np.stack([LEVELS] * 3, -1)),
    "float tiff": (picture(".tiff"), (LEVELS / 255).astype(np.float32)),
    "float tiff of levels": (picture(".tiff"), LEVELS.astype(np.float32)),
    "npy": (npy, LEVELS / 255),
    "npy of one channel": (npy, (LEVELS / 255)[:, None]),
    "npy of levels": (npy, LEVELS / 1.0001),
    "npy of int64": (npy, LEVELS.astype(np.int64)),
    "half npy": (npy, (LEVELS / 255).astype(np.float64)),
    "mat": (mat, LEVELS / 255),
    "mat of levels": (mat, LEVELS),
}


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize(("write", "arrays"), MAPS.values(), ids=MAPS)
def test_probability_maps_of_every_kind(tmp_path, write, arrays, name):
    scores = score_predictions(saved(tmp_path, arrays, write), SAMPLES, name)
    assert scores.values == pytest.approx(direct(LEVELS / 255, name), abs=2e-4, nan_ok=True)
    assert scores.assumptions[1].startswith("the predictions are probabilities, levels 0 to")


MASKINGS = {
    "0 and 1": (picture(".png"), FOUND),
    "0 and 255": (picture(".png"), 255 * FOUND),
    "0 and 65535": (picture(".png"), FOUND.astype(np.uint16) * 65535),
    "0 and 1 in 16 bits": (picture(".png"), FOUND.astype(np.uint16)),
    "bool": (npy, FOUND.astype(bool)),
    "float 1": (npy, FOUND.astype(np.float32)),
    "float 255": (picture(".tiff"), 255 * FOUND.astype(np.float32)),
    "mat of doubles": (mat, 255.0 * FOUND),
}


@pytest.mark.parametrize(("write", "arrays"), MASKINGS.values(), ids=MASKINGS)
@pytest.mark.parametrize("threshold", [None, 0.3])
def test_masks_of_every_kind(tmp_path, write, arrays, threshold):
    scores = score_predictions(saved(tmp_path, arrays, write), SAMPLES, "centroid", threshold)
    assert scores.values == pytest.approx(direct(FOUND.astype(float), "centroid"), nan_ok=True)
    assert scores.assumptions[1].startswith("the predictions are masks, of 0 and ")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ((LEVELS % 4), "largest level of the folder is 3, from which a range"),
        (LEVELS * (100 / 255), "largest level of the folder is 100"),
        (np.minimum(LEVELS, 100), "largest level of the folder is 100"),
        (LEVELS * (1.02 / 255), "largest level of the folder is 1.02"),
        (LEVELS.astype(float) - 3, "at least 0, found -3; of logits take the sigmoid"),
        (np.where(LEVELS > 250, np.nan, LEVELS), "expected levels of at least 0, found nan"),
        (LEVELS * 1j, "expected real numbers, found complex128"),
        ([FOUND[0], 255 * FOUND[1], FOUND[2]], "a.npy: its largest level is 1, of .*b.npy 255"),
        ([LEVELS[0] / 255, LEVELS[1].astype(float), LEVELS[2] / 1.0], "a.npy: its largest level is 1, of "),
        ([LEVELS[0], LEVELS[1] / 255, LEVELS[2]], "b.npy: holds float, .*a.npy uint8"),
        (
            [LEVELS[0], LEVELS[1].T, LEVELS[2]],
            "b.npy: a prediction of 24x30 pixels, but the mask of 'b' has 30x24",
        ),
        (np.stack([LEVELS, LEVELS, LEVELS // 2], -1), r"one grey plane, found shape \(24, 30, 3\)"),
        (LEVELS.astype("U"), "expected real numbers"),
    ],
)
def test_what_is_ambiguous_or_no_map_is_refused(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        score_predictions(saved(tmp_path, arrays), SAMPLES)


def test_a_stated_scale_settles_it(tmp_path):
    folder = saved(tmp_path, np.rint(LEVELS * (100 / 255)))
    scores = score_predictions(folder, SAMPLES, scale=100)
    assert scores.values == pytest.approx(direct(np.rint(LEVELS * (100 / 255)) / 100))
    assert "levels 0 to 100 are probabilities 0 to 1, as stated" in scores.assumptions
    with pytest.raises(ValueError, match="holds 100, above the scale 99"):
        score_predictions(folder, SAMPLES, scale=99)


@pytest.mark.parametrize("suffix", ["_pred", "_mask", "_probability", "_PRED"])
def test_names_with_suffixes(tmp_path, suffix):
    scores = score_predictions(saved(tmp_path, LEVELS, suffix=suffix), SAMPLES)
    assert scores.values == pytest.approx(direct(LEVELS / 255))
    assert [row["picture"] for row in scores.rows] == ["a", "b", "c_1"]


def test_probabilities_come_before_masks_beside_them(tmp_path):
    saved(saved(tmp_path, LEVELS, suffix="_probability"), FOUND, suffix="_mask")
    scores = score_predictions(tmp_path, SAMPLES)
    assert scores.values == pytest.approx(direct(LEVELS / 255))
    assert "NAME_mask, which are there too, are not read" in scores.assumptions


def test_which_file_is_meant_must_be_clear(tmp_path):
    saved(tmp_path, LEVELS, picture(".png"))
    saved(tmp_path, LEVELS, suffix="_pred")
    with pytest.raises(
        ValueError, match=r"which are the predictions\? each picture has .*a.png, .*a_pred.npy"
    ):
        score_predictions(tmp_path, SAMPLES)
    (tmp_path / "b_pred.npy").unlink()
    npy(tmp_path / "c_1", LEVELS[2])
    with pytest.raises(ValueError, match=r"c_1.png: a second prediction of the picture 'c_1' beside"):
        score_predictions(tmp_path, SAMPLES)


def test_a_missing_prediction_is_named(tmp_path):
    (saved(tmp_path, LEVELS) / "b.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"no prediction called b \(2 of 3 pictures have one\)"):
        score_predictions(tmp_path, SAMPLES)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        score_predictions(tmp_path / "nowhere", SAMPLES)


def test_pictures_in_folders(tmp_path):
    samples = [SAMPLES[0]._replace(name="seq1/000"), SAMPLES[1]._replace(name="seq2/000")]
    for number in (0, 1):
        folder = tmp_path / f"seq{number + 1}"
        folder.mkdir()
        npy(folder / "000", MASKS[number])
    assert score_predictions(tmp_path, samples).values["iou"] == 1
    (tmp_path / "seq2" / "000.npy").unlink()
    with pytest.raises(ValueError, match="the prediction of both 'seq1/000' and 'seq2/000'"):
        score_predictions(tmp_path, samples)


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00", b"\x89PNG\r\n\x1a\n"])
@pytest.mark.parametrize("ending", [".png", ".tif", ".npy", ".mat"])
def test_damaged_files_are_named(tmp_path, ending, content):
    path = tmp_path / f"file{ending}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"file\{ending}: "):
        read_map(path)


def test_files_of_several_planes_are_refused(tmp_path):
    savemat(tmp_path / "two.mat", {"T": LEVELS[0], "mask": FOUND[0]})
    cv2.imwritemulti(str(tmp_path / "pages.tiff"), list(LEVELS))
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    for name, message in (("two.mat", "T, mask"), ("pages.tiff", "3 pages"), ("objects.npy", "numbers")):
        with pytest.raises(ValueError, match=f"{name}: .*{message}"):
            read_map(tmp_path / name)


def test_float_maps_count_as_the_probabilities_themselves(tmp_path):
    """Bit by bit as when the network is evaluated, also where a value meets the threshold."""
    probability = (LEVELS / 255).astype(np.float32)
    for name in PROTOCOLS:
        for threshold in (None, float(probability[1, 3, 3]), 0.1, 0.7):
            scores = score_predictions(saved(tmp_path, probability), SAMPLES, name, threshold)
            assert scores.values == pytest.approx(
                direct(probability, name, threshold), rel=0, abs=0, nan_ok=True
            )


@pytest.mark.parametrize("name", PROTOCOLS)
def test_rows_are_each_pictures_own_numbers(tmp_path, name):
    scores = score_predictions(saved(tmp_path, LEVELS / 255), SAMPLES, name)
    for number, row in enumerate(scores.rows):
        metrics = protocol(name)
        one = slice(number, number + 1)
        metrics.update(torch.from_numpy(LEVELS[one] / 255)[:, None], torch.from_numpy(MASKS[one])[:, None])
        values = {key: value.item() for key, value in metrics.compute().items() if value.ndim == 0}
        assert {key: values[key] for key in row if key != "picture"} == pytest.approx(
            {key: value for key, value in row.items() if key != "picture"}, nan_ok=True
        )
    write_csv(tmp_path / "rows.csv", scores.rows)
    table = list(csv.DictReader((tmp_path / "rows.csv").open()))
    assert [line["picture"] for line in table] == ["a", "b", "c_1"]
    for line, row in zip(table, scores.rows, strict=True):
        for key, value in row.items():
            assert line[key] == ("" if value != value else str(value))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_curve_is_what_each_threshold_gives(tmp_path, name):
    folder = saved(tmp_path, LEVELS / 255)
    curve = score_predictions(folder, SAMPLES, name, bins=20).curve
    for row in curve[::3]:
        expected = score_predictions(folder, SAMPLES, name, threshold=float(row["threshold"])).values
        if name == "vessel":
            expected["recall"] = expected["sensitivity"]
        for key in row.keys() - {"threshold"}:
            assert row[key] == pytest.approx(expected[key], nan_ok=True)
    write_csv(tmp_path / "curve.csv", curve)
    save_figure(curve_figure(curve, name), tmp_path / "curve.png")
    assert cv2.imread(str(tmp_path / "curve.png")) is not None
    assert len(list(csv.DictReader((tmp_path / "curve.csv").open()))) == 20


def test_regions_belong_to_vessels(tmp_path):
    regions = {sample.name: np.ones_like(MASKS[0]) for sample in SAMPLES}
    regions["a"] = regions["a"].copy()
    regions["a"][:, 15:] = 0
    folder = saved(tmp_path, LEVELS)
    inside = score_predictions(folder, SAMPLES, "vessel", regions=regions)
    half = protocol("vessel")
    left = LEVELS[:1, None, :, :15].astype(np.float32) / 255, MASKS[:1, None, :, :15]
    half.update(*map(torch.from_numpy, left))
    expected = {name: value.item() for name, value in half.compute().items()}
    assert {key: value for key, value in inside.rows[0].items() if key != "picture"} == pytest.approx(
        expected
    )
    with pytest.raises(ValueError, match="the protocol 'vessel' alone"):
        PictureRows("overlap").update(["a"], *torch.ones(3, 1, 1, 4, 4))


def test_rows_and_curves_state_what_they_need(tmp_path):
    plane = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match="a name for each of 2 pictures, got 1"):
        PictureRows("overlap").update(["a"], plane, plane)
    with pytest.raises(ValueError, match="bins must be at least 1"):
        ThresholdCurve("overlap", 0)
    with pytest.raises(ValueError, match=r"rows.csv: no rows"):
        write_csv(tmp_path / "rows.csv", [])
    with pytest.raises(ValueError, match="from 0 to 1, found 0 to 255"):
        ThresholdCurve("centroid").update(plane + 255 * torch.eye(4), plane)
