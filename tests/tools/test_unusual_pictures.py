"""Pictures and videos as people have them, through the commands: all of each is looked at, or it is named."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import csv
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.datasets.test_damaged_files import ENDINGS, damaged, sound_files
from unfoldkit import rpcanet
from unfoldkit.datasets import SyntheticScenes
from unfoldkit.datasets.reading.video import video_file
from unfoldkit.tools import evaluate, predict

OFFICIAL = "weights/rpcanet_sirst_official.pkl"


def detections_of(folder):
    found = json.loads((folder / "detections.json").read_text())
    with (folder / "detections.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["picture"] for row in rows] == [object["picture"] for object in found["detections"]]
    return found


def complaint(err):
    """The one line that ends a command, without the progress bar."""
    lines = [line for line in err.splitlines() if "error:" in line]
    assert len(lines) == 1
    assert "Traceback" not in err
    return lines[0]


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "scene.png"
    cv2.imwrite(str(path), SyntheticScenes("test", 1, size=48)[0].image)
    return path


@pytest.mark.slow
def test_every_target_of_a_large_picture_is_found(reference_file, tmp_path, run):
    picture = reference_file("cases/vision/levels/tiles_2560.png")
    given = ("--weights", reference_file(OFFICIAL), picture, "--out", tmp_path, "--detections")
    status, said, _ = run(predict, *given)
    assert status == 0
    assert "1 pictures of over 768 pixels a side were taken at their own size, in tiles" in said
    assert len(detections_of(tmp_path)["detections"]) == 100


def test_targets_of_a_wide_picture_are_found_by_predict_and_evaluate(reference_file, tmp_path, run):
    """5x5 targets in a picture of more than three times the training size are not shrunk away."""
    rng, mask = np.random.default_rng(0), np.zeros((64, 800), np.uint8)
    for x in range(40, 800, 80):
        mask[30:35, x : x + 5] = 255
    levels = 60 + 4 * rng.normal(size=mask.shape) + 150.0 * (mask > 0)
    for kind, pixels in (("images", levels.clip(0, 255).astype(np.uint8)), ("masks", mask)):
        (tmp_path / "data/test" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "data/test" / kind / "wide.png"), pixels)
    weights = ("--weights", reference_file(OFFICIAL))
    status, said, _ = run(
        predict, *weights, tmp_path / "data/test/images", "--out", tmp_path / "out", "--detections"
    )
    assert (status, "1 pictures of over 768" in said) == (0, True)
    found = detections_of(tmp_path / "out")["detections"]
    assert [object["x"] for object in found] == pytest.approx(range(42, 800, 80), abs=1)
    status, said, _ = run(
        evaluate, *weights, "--dataset=folder", "--root", tmp_path / "data", "--json", tmp_path / "a.json"
    )
    assert (status, "1 pictures of over 768" in said) == (0, True)
    assert json.loads((tmp_path / "a.json").read_text())["pd"] == 1


def test_raw_thermal_pictures_give_the_mask_of_their_8_bit_picture(reference_file, tmp_path, run):
    folder = reference_file("cases/vision/levels")
    thermal = {
        "kelvin100_16bit.png": "percentile",
        "raw14_in_16bit.png": "percentile",
        "celsius_float32.tif": "percentile",
        "ref_8bit.png": "full",
    }
    pictures = [folder / name for name in thermal]
    status, *_ = run(
        predict, "--weights", reference_file(OFFICIAL), *pictures, "--out", tmp_path, "--detections"
    )
    assert status == 0
    expected = cv2.imread(str(tmp_path / "ref_8bit_mask.png"), cv2.IMREAD_GRAYSCALE) > 0
    for picture in pictures:
        mask = cv2.imread(str(tmp_path / f"{picture.stem}_mask.png"), cv2.IMREAD_GRAYSCALE) > 0
        assert (mask & expected).sum() / (mask | expected).sum() > 0.9
    chosen = {picture["picture"]: picture["levels"] for picture in detections_of(tmp_path)["pictures"]}
    assert chosen == {path.stem: thermal[path.name] for path in pictures}


@pytest.mark.parametrize(
    ("option", "seen"), [("7000,9000", ("given", 7000, 9000)), ("full", ("full", 0, 65535))]
)
def test_chosen_levels_are_stated(tmp_path, run, option, seen):
    cv2.imwrite(str(tmp_path / "raw.png"), np.arange(7300, 8200, dtype=np.uint16).reshape(30, 30))
    arguments = (tmp_path / "raw.png", "--method=pcp", f"--levels={option}", "--detections")
    assert run(predict, *arguments, "--out", tmp_path)[0] == 0
    (picture,) = detections_of(tmp_path)["pictures"]
    assert (picture["levels"], picture["low"], picture["high"]) == seen


def test_levels_of_training_are_those_of_evaluation(tmp_path, run):
    training = {"data": {"size": 32, "mean": 0.0, "std": 255.0, "levels": "percentile"}}
    net = rpcanet.build("rpcanet", stages=1, channels=4)
    rpcanet.save_weights(net, tmp_path / "net.safetensors", training)
    arguments = ("--weights", tmp_path / "net.safetensors", "--dataset=synthetic", "--count=1")
    for option, expected in (((), "percentile"), (("--levels=10,200",), "10,200")):
        assert run(evaluate, *arguments, *option, "--json", tmp_path / "a.json")[0] == 0
        assert json.loads((tmp_path / "a.json").read_text())["settings"]["levels"] == expected


def test_an_evaluation_says_which_levels_it_chose(tmp_path, run):
    """Of pictures of more than 8 bits; the others are taken over their whole range."""
    mask = np.zeros((30, 30), np.uint8)
    mask[10:14, 10:14] = 255
    deep = np.arange(7300, 8200, dtype=np.uint16).reshape(30, 30)
    for name, picture in (("deep", deep), ("eight", (deep // 40).astype(np.uint8))):
        for kind, pixels in (("images", picture), ("masks", mask)):
            (tmp_path / "test" / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / f"test/{kind}/{name}.png"), pixels)
    given = (
        "--method=pcp",
        "--dataset=folder",
        "--size=0",
        "--root",
        tmp_path,
        "--json",
        tmp_path / "a.json",
    )
    assert run(evaluate, *given)[0] == 0
    (seen,) = json.loads((tmp_path / "a.json").read_text())["pictures"]
    assert seen == {"picture": "deep", "levels": "percentile", "low": 7300, "high": 8199}


def test_a_picture_of_few_levels_is_named_in_one_line(tmp_path, run, recwarn):
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((20, 20), 90, np.uint8))
    assert run(predict, tmp_path / "flat.png", "--method=pcp", "--out", tmp_path)[0] == 0
    (warning,) = [str(entry.message) for entry in recwarn if "flat.png" in str(entry.message)]
    assert warning == f"{tmp_path / 'flat.png'}: spans 0 % of its range of levels"


def test_objects_turn_with_their_picture(reference_file, tmp_path, run):
    picture = reference_file("cases/vision/exif/i3.png")
    given = ("--weights", reference_file(OFFICIAL), "--size=0", "--detections")
    assert run(predict, *given, picture, "--out", tmp_path)[0] == 0
    (found,) = detections_of(tmp_path)["detections"]
    rows, columns = np.nonzero(cv2.imread(str(reference_file("cases/vision/exif/m3.png")), 0))
    assert (found["x"], found["y"]) == pytest.approx((columns.mean(), rows.mean()), abs=1)


def test_all_pages_and_frames_are_taken_from_a_mixed_folder_of_subfolders(
    reference_file, tmp_path, scene, run
):
    folder = tmp_path / "mixed"
    for place in ("seq1", "seq2"):
        (folder / place).mkdir(parents=True)
        (folder / place / "000.png").write_bytes(scene.read_bytes())
    for name, source in (("pages.tif", "levels/multipage_8bit.tif"), ("deep.avi", "video/ffv1_16bit.avi")):
        (folder / name).write_bytes(reference_file(f"cases/vision/{source}").read_bytes())
    for rubbish in ("._a.png", "Thumbs.db", "readme.txt"):
        (folder / rubbish).write_bytes(b"none")
    out = tmp_path / "out"
    assert run(predict, folder, "--method=pcp", "--out", out, "--detections")[0] == 0
    pages = [f"pages_{number:04d}" for number in (1, 2, 3)]
    for name in ("seq1/000", "seq2/000", *pages):
        assert (out / f"{name}_mask.png").is_file()
    assert (out / "deep_mask.avi").is_file()
    pictures = detections_of(out)["pictures"]
    frames = [f"deep_{number:04d}" for number in range(1, 7)]
    assert sorted(entry["picture"] for entry in pictures) == sorted([*frames, *pages, "seq1/000", "seq2/000"])
    assert {entry["levels"] for entry in pictures if entry["picture"] in frames} == {"percentile"}


@pytest.mark.parametrize("ending", ["tif", "gif"])
def test_pages_do_not_overwrite_the_results_of_a_picture(tmp_path, scene, run, ending):
    folder, out = tmp_path / "in/seq", tmp_path / "out"
    folder.mkdir(parents=True)
    pages = [Image.fromarray(cv2.imread(str(scene), 0) // k) for k in (1, 2)]
    pages[0].save(folder / f"v.{ending}", save_all=True, append_images=pages[1:])
    for name in ("v_0002", "v_0003"):
        (folder / f"{name}.png").write_bytes(scene.read_bytes())
    status, _, err = run(predict, tmp_path / "in", "--method=pcp", "--out", out)
    assert status == 2
    assert f"seq/v_0002.png: its results would overwrite those of a page of {folder}/v.{ending}" in complaint(
        err
    )
    assert not out.exists()
    (folder / "v_0002.png").unlink()
    assert run(predict, tmp_path / "in", "--method=pcp", "--out", out)[0] == 0
    assert len(list(out.glob("seq/v_000[123]_mask.png"))) == 3


def test_a_truncated_video_is_refused_by_name_and_leaves_nothing(reference_file, tmp_path, run):
    video = reference_file("cases/vision/video/trunc.avi")
    status, _, err = run(predict, video, "--method=pcp", "--out", tmp_path / "out")
    assert status == 2
    assert f"{video}: ends after 6 of 12 frames" in complaint(err)
    assert not list((tmp_path / "out").iterdir())


def test_an_error_from_a_method_names_the_picture_once(tmp_path, run):
    narrow = tmp_path / "narrow.png"
    cv2.imwrite(str(narrow), np.arange(50, dtype=np.uint8)[:, None])
    status, _, err = run(predict, narrow, "--method=pstnn", "--out", tmp_path)
    assert status == 2
    assert complaint(err).count("narrow.png") == 1


def test_a_folder_of_save_pretrained_says_that_its_size_is_assumed(tmp_path, scene, run):
    rpcanet.build("rpcanet", stages=1, channels=4, mean=90.0, std=40.0).save_pretrained(tmp_path / "kept")
    status, said, _ = run(predict, scene, "--weights", tmp_path / "kept", "--out", tmp_path / "out")
    assert status == 0
    assert "assuming 256x256 and (level - 90) / 40" in said


def test_an_answer_beyond_the_range_of_numbers_is_refused_by_name(tmp_path, scene, run):
    net = rpcanet.build("rpcanet", stages=2, channels=4, mean=90.0, std=40.0)
    for parameter in net.parameters():
        parameter.data.fill_(1e15)
    net.save_pretrained(tmp_path / "kept")
    status, _, err = run(predict, scene, "--weights", tmp_path / "kept", "--out", tmp_path / "out")
    assert status == 2
    assert "scene.png: the answer is not finite everywhere" in complaint(err)
    assert not [*(tmp_path / "out").iterdir()]
    with video_file(tmp_path / "film.avi", 10.0, (48, 48)) as append:
        append(np.full((3, 48, 48), 90, np.uint8))
    status, _, err = run(
        predict, tmp_path / "film.avi", "--weights", tmp_path / "kept", "--out", tmp_path / "out"
    )
    assert status == 2
    assert "film.avi: the answer is not finite everywhere" in complaint(err)
    assert not [*(tmp_path / "out").iterdir()]


def predict_damaged(folder, count, run):
    """Statuses of `count` damaged files, one command each."""
    rng = np.random.default_rng(2)
    (folder / "sound").mkdir()
    sound, statuses = sound_files(folder / "sound"), []
    for number in range(count):
        source = sound[number % len(sound)]
        ending = rng.choice(ENDINGS) if rng.random() < 0.2 else "".join(source.suffixes)
        path = folder / f"{number}{ending}"
        path.write_bytes(damaged(rng, source.read_bytes()))
        status, _, err = run(predict, path, "--method=pcp", "--out", folder / "out")
        assert status in (0, 2)
        assert not status or path.name in complaint(err)
        path.unlink()
        statuses.append(status)
    return statuses


@pytest.mark.filterwarnings("ignore::unfoldkit.datasets.reading.levels.PictureWarning")
def test_damaged_files_end_in_a_result_or_in_a_line_that_names_them(tmp_path, run):
    assert set(predict_damaged(tmp_path, 40, run)) == {0, 2}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::unfoldkit.datasets.reading.levels.PictureWarning")
def test_two_thousand_damaged_files_end_in_a_result_or_in_a_line(tmp_path, run):
    predict_damaged(tmp_path, 2000, run)
