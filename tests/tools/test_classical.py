"""Classical methods, bad data and whole pictures from the command lines."""

import json
import resource
import shutil
import sys
from importlib import import_module

import cv2
import numpy as np
import pytest
import torch

from unfoldkit import rpcanet
from unfoldkit.datasets import open_pictures
from unfoldkit.datasets.reading.video import read_video, video_file
from unfoldkit.datasets.synthetic import SyntheticScenes
from unfoldkit.rpcanet import Evaluation, Prediction, evaluate_data_set, predict
from unfoldkit.rpcanet.inference.evaluation import answer


def command(monkeypatch, tool, *arguments):
    monkeypatch.setattr(sys, "argv", [f"{tool}.py", *map(str, arguments)])
    import_module(f"unfoldkit.tools.{tool}").main()


@pytest.fixture
def tree(tmp_path):
    """Three pictures with a bright square, one of them corrupted and one without any object."""
    for folder in ("images", "masks"):
        (tmp_path / "test" / folder).mkdir(parents=True)
    mask = np.zeros((60, 80), np.uint8)
    mask[20:23, 30:33] = 255
    ramp = np.tile(np.arange(80, dtype=np.uint8), (60, 1))
    for name in ("a", "broken", "empty"):
        cv2.imwrite(str(tmp_path / f"test/images/{name}.png"), ramp + mask // 2)
        cv2.imwrite(str(tmp_path / f"test/masks/{name}.png"), mask)
    (tmp_path / "test/images/broken.png").write_bytes(b"nothing")
    cv2.imwrite(str(tmp_path / "test/masks/empty.png"), 0 * mask)
    return tmp_path


@pytest.mark.parametrize("method", ["pcp", "pssv", "ipi"])
def test_methods_find_a_square_on_a_ramp(tree, method):
    values = evaluate_data_set(
        Evaluation("folder", method=method, root=str(tree), size=0, skip_bad=True)
    ).values
    assert values["pd"] == 1
    assert values["iou"] > 0.8


def test_skip_bad_lists_what_was_left_out_and_the_json_names_the_method(tree, monkeypatch, capsys):
    out = tree / "numbers.json"
    options = ("--method", "pcp", "--dataset", "folder", "--root", tree, "--size", "0", "--json", out)
    command(monkeypatch, "evaluate", *options, "--skip-bad")
    said = capsys.readouterr().out
    assert "Left out 2 bad pictures:" in said
    assert "broken.png: not a readable picture" in " ".join(said.split())
    assert "empty.png: the mask is empty" in " ".join(said.split())
    settings = json.loads(out.read_text())["settings"]
    assert settings["method"] == "pcp"
    assert settings["protocol"] == "overlap"


def test_bad_data_ends_the_evaluation_with_one_line(tree, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        command(monkeypatch, "evaluate", "--method", "pcp", "--dataset", "folder", "--root", tree)
    assert "broken.png: not a readable picture" in " ".join(capsys.readouterr().err.split())


def test_bad_data_ends_a_training_with_one_line(tree, monkeypatch, capsys):
    (tree / "test").rename(tree / "train")
    options = ("--data.name=folder", f"--data.root={tree}", "--data.validation_split=train")
    small = ("--network.stages=1", "--network.channels=4", "--data.size=32", "--data.batch_size=3")
    with pytest.raises(SystemExit):
        command(monkeypatch, "train", *options, *small, "--machine.accelerator=cpu", f"--out={tree / 'run'}")
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("train.py: error: ")
    assert "broken.png: not a readable picture" in said or "empty.png: the mask is empty" in said
    assert "Traceback" not in said


def test_weights_or_a_method(tree):
    with pytest.raises(ValueError, match="expected one of --weights, --method and --predictions"):
        evaluate_data_set(Evaluation("folder", root=str(tree)))
    with pytest.raises(ValueError, match="expected one of --weights and --method"):
        predict(Prediction([str(tree / "test/images/a.png")], out=str(tree / "out")))


def test_predict_with_a_method_and_skip_bad(tree, capsys):
    written = predict(
        Prediction(
            [str(tree / "test/images")], out=str(tree / "out"), method="ipi", panels=True, skip_bad=True
        )
    )
    assert len(written) == 6
    assert "Left out 1 bad pictures:" in capsys.readouterr().out
    mask = cv2.imread(str(tree / "out/a_mask.png"), 0)
    assert np.array_equal(mask > 0, cv2.imread(str(tree / "test/masks/a.png"), 0) > 0)


def test_video_splits_into_what_stays_and_what_moves(tmp_path):
    background = np.tile(np.linspace(40, 200, 64).astype(np.uint8), (48, 1))
    frames = np.repeat(background[None], 30, axis=0)
    truth = np.zeros(frames.shape, bool)
    for k in range(30):
        truth[k, 10:18, 2 * k : 2 * k + 4] = True
    frames[truth] = 250
    with video_file(tmp_path / "walk.avi", 10.0, (48, 64)) as append:
        append(frames)
    assert (
        len(predict(Prediction([str(tmp_path / "walk.avi")], out=str(tmp_path), method="pcp", block=16))) == 3
    )
    stays, mask = (
        np.concatenate(list(read_video(tmp_path / f"walk_{kind}.avi"))) for kind in ("background", "mask")
    )
    assert stays.shape == mask.shape == frames.shape
    assert np.abs(stays.astype(float) - background).mean() < 3
    found = mask > 128
    assert (found & truth).sum() > 0.7 * (found | truth).sum()


def test_a_video_that_does_not_fit_the_disk_leaves_the_file_as_it_was(tmp_path):
    """The system's limit on the size of a file stands for the disk's; OpenCV reports no such thing."""
    path = tmp_path / "walk.avi"
    path.write_bytes(b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))
    try:
        with (
            pytest.raises(OSError, match=r"cannot be written .*frames.*walk.avi"),
            video_file(path, 10.0, (48, 64)) as append,
        ):
            append(np.random.default_rng(0).integers(0, 255, (30, 48, 64), dtype=np.uint8))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_video_is_predicted_frame_by_frame_as_its_pictures_are(tmp_path):
    scenes = SyntheticScenes("test", 3, 48)
    frames = np.stack([scenes[k].image for k in range(3)])
    with video_file(tmp_path / "walk.avi", 10.0, (48, 48)) as append:
        append(frames)
    [decoded] = read_video(tmp_path / "walk.avi")
    for k, frame in enumerate(decoded):
        cv2.imwrite(str(tmp_path / f"frame{k}.png"), frame)
    pictures = [str(tmp_path / f"frame{k}.png") for k in range(3)]
    predict(Prediction([str(tmp_path / "walk.avi"), *pictures], out=str(tmp_path), method="pstnn"))
    [found] = read_video(tmp_path / "walk_probability.avi")
    for k in range(3):
        expected = cv2.imread(str(tmp_path / f"frame{k}_probability.png"), 0).astype(float)
        assert np.abs(found[k] - expected).mean() < 3  # the video's files are compressed


def test_trained_on_crops_is_evaluated_on_whole_pictures_by_the_vessel_protocol(tmp_path):
    for split in ("train", "test"):
        for folder in ("images", "masks"):
            (tmp_path / split / folder).mkdir(parents=True)
        for name, shape in (("a", (45, 70)), ("b", (52, 61))):
            pixels = (np.random.default_rng(0).random(shape) < 0.3).astype(np.uint8)
            cv2.imwrite(str(tmp_path / split / f"images/{name}.png"), 200 * pixels)
            cv2.imwrite(str(tmp_path / split / f"masks/{name}.png"), 255 * pixels)
    from unfoldkit.rpcanet import train
    from unfoldkit.tools.train import configuration_from, parser

    network = ["--network.stages=1", "--network.channels=4", "--recipe.epochs=1", "--recipe.protocol=vessel"]
    data = [
        "--data.name=folder",
        f"--data.root={tmp_path}",
        "--data.validation_split=test",
        "--data.workers=0",
    ]
    crops = ["--data.size=32", "--data.crop=true", "--data.batch_size=2", "--machine.accelerator=cpu"]
    train(configuration_from(parser().parse_args([*network, *data, *crops])), tmp_path / "run")
    weights = str(tmp_path / "run/best.safetensors")
    whole = evaluate_data_set(Evaluation("folder", weights, root=str(tmp_path), protocol="vessel")).values
    assert list(whole) == ["accuracy", "sensitivity", "specificity", "precision", "f1", "iou", "auc"]
    net = rpcanet.load_weights(weights)
    with torch.inference_mode():
        picture = torch.zeros(1, 1, 64, 96)
        levels = cv2.imread(str(tmp_path / "test/images/a.png"), 0)
        picture[0, 0, :45, :70] = torch.from_numpy(levels / 255.0)
        expected = net(picture).object[..., :45, :70]
        found = answer(net, picture[..., :45, :70], padding=32).object
    torch.testing.assert_close(found, expected)


@pytest.mark.reference
def test_a_network_over_pictures_of_neu_seg_in_one_command(reference_file, tmp_path, monkeypatch):
    weights, out, root = tmp_path / "net.safetensors", tmp_path / "numbers.json", tmp_path / "neu_seg"
    rpcanet.save_weights(rpcanet.build("rpcanet", stages=1, channels=4), weights, {"data": {"size": 32}})
    whole = reference_file("data/neu_seg")
    for image, mask, *_ in open_pictures("neu_seg", "test", whole).pairs[:8]:
        for path in (image, mask):
            (root / path.relative_to(whole)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path.relative_to(whole))
    command(
        monkeypatch, "evaluate", "--weights", weights, "--dataset", "neu_seg", "--root", root, "--json", out
    )
    numbers = json.loads(out.read_text())
    assert {"smeasure", "mae", "iou", "f1"} < numbers.keys()
    assert 0 < numbers["smeasure"] < 1
    assert numbers["settings"]["protocol"] == "defect"
    assert numbers["network"]["stages"] == 1
