"""The command that compresses: what it writes trains on, and what it refuses."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json

import cv2
import numpy as np
import pytest
import torch

from unfoldkit import rpcanet
from unfoldkit.rpcanet.compression.command import calibration
from unfoldkit.rpcanet.compression.options import Compression
from unfoldkit.rpcanet.inference.preprocessing import Preprocessing
from unfoldkit.rpcanet.training.configuration import Configuration, Data, Machine, Network, Recipe
from unfoldkit.tools import compress

TRAINING = {"data": {"size": 32}, "recipe": {"epochs": 3}}


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    rpcanet.save_weights(
        rpcanet.build("rpcanet++", stages=1, channels=8, mean=80.0, std=60.0), path, TRAINING
    )
    return path


def test_a_file_becomes_smaller_and_trains_on(weights, tmp_path, run):
    (tmp_path / "pictures").mkdir()
    for name in "abc":
        levels = np.random.default_rng(ord(name)).integers(0, 256, (40, 30), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"pictures/{name}.png"), levels)
    out, report = tmp_path / "half.safetensors", tmp_path / "report.json"
    options = ("--weights", weights, "--size", 0.5, "--pictures", tmp_path / "pictures", "--count", 2)
    status, said, _ = run(compress, *options, "--out", out, "--json", report)
    assert status == 0
    assert "stages.0.oem.dcpm.contrast" in said
    found = json.loads(report.read_text())
    assert found["parameters"] <= 0.5 * found["parameters_before"]
    assert f"{found['parameters']} of {found['parameters_before']} parameters" in said
    assert all(0 < layer["error"] < 1 for layer in found["layers"])
    assert rpcanet.read_training(out) == TRAINING
    assert (rpcanet.load_weights(out).mean, rpcanet.load_weights(out).std) == (80.0, 60.0)

    data = Data(size=32, train_count=4, validation_count=2, batch_size=2, workers=0, mean=80.0, std=60.0)
    network = Network(init=str(out))
    net = rpcanet.train(Configuration(network, data, Recipe(epochs=1), Machine("cpu")), tmp_path / "run")
    before, after = rpcanet.load_weights(out).state_dict(), net.state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before if ".factors.left" in key)
    stored = rpcanet.read_training(tmp_path / "run/last.safetensors")["network"]
    assert (stored["name"], stored["stages"], stored["channels"]) == ("rpcanet++", 1, 8)


def test_the_folders_of_what_it_writes_are_made(weights, tmp_path, run):
    out, report = tmp_path / "new/half.safetensors", tmp_path / "other/report.json"
    assert run(compress, "--weights", weights, "--out", out, "--json", report)[0] == 0
    assert rpcanet.read_training(out) == TRAINING
    assert json.loads(report.read_text())["method"] == "separable"


def looked_at(folder, count, **stated):
    """The mean level of each picture of a folder that a compression looks at."""
    options = Compression("net.safetensors", pictures=str(folder), count=count)
    found = Preprocessing(size=8, std=1.0, **stated)
    return [round(image.mean().item()) for image in calibration(options, found)]


@pytest.mark.parametrize(
    ("count", "expected"), [(12, [i * 23 // 12 for i in range(12)]), (2, [0, 11]), (30, list(range(23)))]
)
@pytest.mark.filterwarnings("ignore:.*range of levels")
def test_pictures_are_looked_at_evenly_from_first_to_last(tmp_path, count, expected):
    for level in range(23):
        cv2.imwrite(str(tmp_path / f"{level:02d}.png"), np.full((8, 8), level, np.uint8))
    assert looked_at(tmp_path, count) == expected


@pytest.mark.filterwarnings("ignore:.*range of levels")
def test_levels_of_pictures_are_those_of_the_training(tmp_path):
    cv2.imwrite(str(tmp_path / "raw.png"), np.full((8, 8), 7750, np.uint16))
    assert looked_at(tmp_path, 1, levels="7300,8200") == [round(255 * 450 / 900)]


def test_training_starts_from_the_weights_it_is_given(weights, tmp_path):
    data = Data(size=32, train_count=2, validation_count=2, batch_size=2, workers=0)
    recipe = Recipe(epochs=1, learning_rate=0.0)
    net = rpcanet.train(
        Configuration(Network(init=str(weights)), data, recipe, Machine("cpu")), tmp_path / "run"
    )
    given = dict(rpcanet.load_weights(weights).named_parameters())
    assert all(torch.equal(parameter, given[name]) for name, parameter in net.named_parameters())


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--size", 0.001], "size must be from"),
        (["--count", 0], "--count must be at least 1"),
        (["--pictures", "nowhere"], "nowhere: no such file or folder"),
        (["--out", "small.json", "--json", "small.json"], "--json would overwrite what --out writes there"),
        (["--out", "WEIGHTS"], "holds the weights that it would be made from"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(weights, tmp_path, run, monkeypatch, options, complaint):
    monkeypatch.chdir(tmp_path)
    options = [weights if option == "WEIGHTS" else option for option in options]
    status, _, complained = run(compress, "--weights", weights, *options)
    assert status
    assert complaint in complained
    assert len(complained.strip().splitlines()) == 1
