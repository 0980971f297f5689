"""The tools as a user runs them: results, tables, JSON, help, and one line for every fault."""

import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from unfoldkit import rpcanet
from unfoldkit.datasets import SegmentationDataset, open_pictures
from unfoldkit.rpcanet import Evaluation, Prediction, evaluate_data_set, predict
from unfoldkit.rpcanet.inference.evaluation import answer
from unfoldkit.rpcanet.inference.preprocessing import prepared_network
from unfoldkit.tools import evaluate
from unfoldkit.tools.benchmarks.plain.networks import plain

ROOT = Path(__file__).parents[2]
PICTURES = 4


def in_a_process(tool, *arguments):
    command = [sys.executable, str(ROOT / "tools" / tool), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    training = {"data": {"size": 32}, "recipe": {"seed": 7}}
    rpcanet.save_weights(rpcanet.build("rpcanet++", stages=1, channels=4), path, training)
    return path


@pytest.mark.reference
def test_official_weights_are_scored_as_their_network_layer_by_layer(reference_file, tmp_path):
    """On the first test pictures, the hits and misses counted here."""
    root, weights = reference_file("data/sirst"), reference_file("weights/rpcanet_sirst_official.pkl")
    first = open_pictures("sirst", "test", root).pairs[:PICTURES]
    for folder, paths in (
        ("images", [pair.image for pair in first]),
        ("masks", [pair.mask for pair in first]),
    ):
        (tmp_path / folder).mkdir()
        for path in paths:
            shutil.copy(path, tmp_path / folder)
    (tmp_path / "test.txt").write_text("\n".join(pair.name for pair in first))
    values = evaluate_data_set(Evaluation("sirst", str(weights), root=str(tmp_path))).values
    net = plain("rpcanet", 6).eval()
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    hits = union = 0
    for image, mask, _ in SegmentationDataset(open_pictures("sirst", "test", tmp_path)):
        with torch.inference_mode():
            probability = net(image[None])[1].sigmoid()
        predicted, target = probability / probability.max() > 0.5, mask[None] > 0
        hits += (predicted & target).sum().item()
        union += (predicted | target).sum().item()
    assert values["iou"] == pytest.approx(hits / union, abs=1e-4)
    assert values["iou"] > 0.6


@pytest.mark.slow
@pytest.mark.reference
def test_official_weights_reach_the_published_numbers(reference_file):
    """RPCANet on SIRST, 86 test pictures: IoU 70.37, F1 82.61, Pd 95.41, Fa 7.42e-5."""
    values = evaluate_data_set(
        Evaluation(
            weights=str(reference_file("weights/rpcanet_sirst_official.pkl")),
            dataset="sirst",
            root=str(reference_file("data/sirst")),
        )
    ).values
    assert round(100 * values["iou"], 2) == 70.37
    assert round(100 * values["f1"], 2) == 82.61
    assert round(100 * values["pd"], 2) == 95.41
    assert round(1e5 * values["fa"], 2) == 7.42


def test_evaluate_prints_a_table_and_writes_json(weights, tmp_path, run):
    out = tmp_path / "deep" / "numbers.json"
    given = ("--weights", weights, "--dataset", "synthetic", "--count", 3, "--json", out)
    status, said, complaint = run(evaluate, *given)
    assert status == 0, complaint
    assert "IoU" in said
    numbers = json.loads(out.read_text())
    settings, network, seconds = (numbers.pop(name) for name in ("settings", "network", "seconds"))
    assert list(numbers) == ["iou", "niou", "f1", "precision", "recall", "pd", "fa", "auc"]
    assert all(0 <= value <= 1 for value in numbers.values())
    assert settings["protocol"] == "overlap"
    assert network["stages"] > 0
    assert seconds > 0


def test_predict_writes_each_picture_at_its_own_size(weights, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    cv2.imwrite(str(pictures / "wide.png"), rng.integers(0, 255, (20, 50), dtype=np.uint8))
    cv2.imwrite(str(pictures / "fine.tif"), rng.integers(0, 65535, (41, 30), dtype=np.uint16))
    cv2.imwrite(str(tmp_path / "colour.bmp"), rng.integers(0, 255, (33, 33, 3), dtype=np.uint8))
    out = tmp_path / "out"
    written = predict(
        Prediction([str(pictures), str(tmp_path / "colour.bmp")], str(weights), str(out), panels=True)
    )
    assert len(written) == 9
    for stem, shape in (("wide", (20, 50)), ("fine", (41, 30)), ("colour", (33, 33))):
        mask = cv2.imread(str(out / f"{stem}_mask.png"), cv2.IMREAD_UNCHANGED)
        probability = cv2.imread(str(out / f"{stem}_probability.png"), cv2.IMREAD_UNCHANGED)
        assert mask.shape == probability.shape == shape
        assert set(np.unique(mask)) <= {0, 255}
        clear = probability != 128  # 0.5 itself is rounded to 128
        assert np.array_equal(mask[clear] == 255, probability[clear] > 128)
        assert cv2.imread(str(out / f"{stem}_panel.png")).shape[2] == 3


def test_predict_pads_pictures_of_vessels_as_evaluation_does(tmp_path):
    net = rpcanet.build("rpcanet", stages=2, channels=4, mean=100.0, std=50.0).eval()
    training = {"data": {"size": 32, "crop": True}, "recipe": {"protocol": "vessel"}}
    rpcanet.save_weights(net, tmp_path / "net.safetensors", training)
    levels = np.random.default_rng(0).integers(0, 255, (45, 50), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), levels)
    predict(
        Prediction([str(tmp_path / "a.png")], str(tmp_path / "net.safetensors"), out=str(tmp_path / "out"))
    )
    image = (torch.from_numpy(levels).float() - 100) / 50
    expected = 255 * answer(net, image[None, None], padding=32).object[0, 0].sigmoid()
    found = cv2.imread(str(tmp_path / "out/a_probability.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(found, expected.detach(), atol=0.51)


def test_published_weights_pad_as_their_data_set(tmp_path):
    torch.save(rpcanet.build("rpcanet", stages=1, channels=4).state_dict(), tmp_path / "net.pth")
    assert prepared_network(tmp_path / "net.pth", "drive")[1].padding == 32
    assert prepared_network(tmp_path / "net.pth", "sirst")[1].padding == 1


def test_predict_again_into_a_folder_below_its_pictures_writes_the_same(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.arange(1024, dtype=np.uint8).reshape(32, 32))
    options = Prediction([str(tmp_path)], method="pcp", out=str(tmp_path / "out"))
    assert predict(options) == predict(options)


@pytest.mark.reference
def test_predict_marks_a_real_target(reference_file, tmp_path):
    predict(
        Prediction(
            [str(reference_file("data/sirst/images/Misc_70.png"))],
            str(reference_file("weights/rpcanet_sirst_official.pkl")),
            str(tmp_path),
        )
    )
    truth = cv2.imread(str(reference_file("data/sirst/masks/Misc_70_pixels0.png")), 0) > 0
    found = cv2.imread(str(tmp_path / "Misc_70_mask.png"), 0) > 0
    assert (truth & found).sum() > 0.5 * (truth | found).sum()


def mixed_sizes(folder):
    """A data set of a picture of 64x64 and one of 48x48, in every split."""
    for split in ("train", "val"):
        for name, size in (("a", 64), ("b", 48)):
            mask = np.zeros((size, size), np.uint8)
            mask[5:9, 5:9] = 255
            for kind, levels in (("images", mask // 2 + np.arange(size, dtype=np.uint8)), ("masks", mask)):
                path = folder / "mixed" / split / kind / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), levels)
    return folder / "mixed"


def faults(tmp_path, weights):
    """(tool, arguments, what the line must say)"""
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    twin = tmp_path / "twin"
    twin.mkdir()
    (twin / "broken.png").write_bytes(b"")
    lone = tmp_path / "lone" / "test"
    for folder in ("images", "masks"):
        (lone / folder).mkdir(parents=True)
        cv2.imwrite(str(lone / folder / "a.png"), np.zeros((8, 8), np.uint8))
    (lone / "images" / "a.png").unlink()
    cv2.imwrite(str(lone / "images" / "b.png"), np.zeros((8, 8), np.uint8))
    on = ("evaluate.py", "--weights", weights, "--dataset")
    by = ("evaluate.py", "--method", "pcp", "--dataset", "synthetic", "--size", "32")
    saved = ("evaluate.py", "--predictions", twin, "--dataset", "synthetic")
    out = ("--out", tmp_path / "out")
    split = ("predict.py", "--method", "pcp", *out, broken)
    mixed = ("train.py", "--data.name", "folder", "--data.root", mixed_sizes(tmp_path), "--data.size", "0")
    small = (
        "--data.batch_size",
        "2",
        "--data.workers",
        "0",
        "--network.stages",
        "1",
        "--network.channels",
        "4",
    )
    return [
        ((*on, "sirst"), "root is missing"),
        ((*on, "sirst", "--root", tmp_path / "none"), "none: no such folder"),
        ((*on, "folder", "--root", tmp_path / "lone"), "b.png: no mask of that name"),
        ((*on, "synthetic", "--split", "all"), "split must be one of train, val, test"),
        ((*on, "synthetic", "--count", "0"), "count must be at least 1 and size at least 32, got 0"),
        ((*on, "sirst", "--count", "5"), "--count is not read beside --dataset sirst: leave it out, got 5"),
        ((*on, "folder", "--seed", "5"), "--seed is not read beside --dataset folder: leave it out, got 5"),
        ((*on, "synthetic", "--scale", "5"), "--scale is not read beside --weights: leave it out, got 5.0"),
        ((*by, "--scale", "5"), "--scale is not read beside --method"),
        ((*by, "--mean", "7"), "--mean is not read beside --method"),
        ((*by, "--std", "3"), "--std is not read beside --method"),
        ((*by, "--precision", "bfloat16"), "--precision is not read beside --method"),
        ((*saved, "--mean", "7"), "--mean is not read beside --predictions"),
        ((*saved, "--tile", "512"), "--tile is not read beside --predictions"),
        ((*split, "--block", "0"), "--block must be at least 1, got 0"),
        ((*split, "--block", "-1", "--skip_bad"), "--block must be at least 1, got -1"),
        ((*split, "--dataset", "drive"), "--dataset is not read beside --method"),
        ((*split, "--size", "32"), "--size is not read beside --method"),
        ((*split, "--mean", "5"), "--mean is not read beside --method"),
        ((*split, "--std", "0"), "--std is not read beside --method"),
        ((*split, "--compile", "true"), "--compile is not read beside --method"),
        (("evaluate.py", "--weights", broken, "--dataset", "synthetic"), "broken.png: neither safetensors"),
        (("predict.py", "--weights", weights, *out, broken), "broken.png: not a readable picture"),
        (("predict.py", "--weights", weights, *out, broken, twin), "would overwrite those of"),
        (("predict.py", "--weights", weights, *out, tmp_path / "nothing.png"), "nothing.png: no such file"),
        (
            ("predict.py", "--weights", tmp_path / "no.pkl", *out, broken),
            "no.pkl: no such file; expected weights",
        ),
        (("train.py", "--data.name", "sirst", *out), "root is missing"),
        (
            ("train.py", "--data.train_count", "2", "--data.workers", "0", *out),
            "batch_size must be from 1 to the 2 training pictures, got 8; --data.batch_size sets it",
        ),
        (("train.py", "--recipe.epochs", "many", *out), "epochs"),
        (("train.py", "--data.train_count", "0", *out), "count must be at least 1"),
        (("train.py", "--recipe.seed", "-1", *out), "--recipe.seed must be from 0 to 4294967295, got -1"),
        (("train_estimator.py", "--recipe.seed", 2**32, *out), "--recipe.seed must be from 0 to 4294967295"),
        ((*mixed, *small, *out), "pictures of one batch must be of one size, got"),
    ]


def test_what_stands_in_the_place_of_an_option_may_be_given(tmp_path):
    """As the settings in the JSON of an evaluation have it."""
    options = Evaluation("synthetic", method="pcp", count=1, size=32)
    settings = evaluate_data_set(options).settings
    assert (settings.mean, settings.std) == (0, 255)
    assert evaluate_data_set(settings).settings == settings
    of_a_folder = Evaluation(
        "folder", method="pcp", root=str(mixed_sizes(tmp_path)), split="val", seed=42, size=32
    )
    assert evaluate_data_set(of_a_folder).settings.seed == 42
    cv2.imwrite(str(tmp_path / "a.png"), np.arange(1024, dtype=np.uint8).reshape(32, 32))
    given = {"size": 0, "mean": 0.0, "std": 255.0}
    assert predict(Prediction([str(tmp_path / "a.png")], method="pcp", out=str(tmp_path / "out"), **given))


def test_every_fault_is_one_clear_line_and_status_2(tmp_path, weights, monkeypatch, capsys):
    for (tool, *arguments), message in faults(tmp_path, weights):
        monkeypatch.setattr(sys, "argv", [tool, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            import_module(f"unfoldkit.tools.{Path(tool).stem}").main()
        said = capsys.readouterr().err
        assert ended.value.code == 2, (tool, arguments, said)
        assert message in " ".join(said.split()), (tool, arguments)


def test_a_fault_shows_no_traceback(weights):
    done = in_a_process("evaluate.py", "--weights", weights, "--dataset", "sirst")
    assert done.returncode == 2
    assert done.stderr == "evaluate.py: error: root is missing: the data set 'sirst' is read from a folder\n"


@pytest.mark.parametrize("tool", ["train.py", "evaluate.py", "predict.py"])
def test_help_teaches(tool):
    done = in_a_process(tool, "--help")
    assert done.returncode == 0
    assert f"python tools/{tool}" in done.stdout
