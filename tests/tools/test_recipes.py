"""What a training run does beyond its losses: looks, what they find, labels, the last batch, what it warns of."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unfoldkit import rpcanet
from unfoldkit.common.configuration import keep_configuration, require_folder
from unfoldkit.rpcanet import train
from unfoldkit.rpcanet.training.run import open_data
from unfoldkit.rpcanet.training.selection import PATIENCE, SelectionIoU
from unfoldkit.tools import evaluate
from unfoldkit.tools.train import configuration_from, parser

CONFIGS = Path(__file__).parents[2] / "tools" / "configs"
TINY = [
    "--network.name=rpcanet",
    "--network.stages=1",
    "--network.channels=4",
    "--data.size=32",
    "--data.train_count=6",
    "--data.validation_count=2",
    "--data.batch_size=2",
    "--data.workers=0",
    "--recipe.epochs=2",
    "--machine.accelerator=cpu",
]


def configured(*options):
    return configuration_from(parser().parse_args([*TINY, *map(str, options)]))


def scalars(out):
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


@pytest.fixture
def folder(tmp_path):
    """A function that makes a data set of 5 pictures of 32x32 whose masks hold `mask`."""

    def made(mask, name="data"):
        for split in ("train", "val"):
            for kind in ("images", "masks"):
                (tmp_path / name / split / kind).mkdir(parents=True)
            for number in range(5):
                picture = np.random.default_rng(number).integers(0, 256, (32, 32), np.uint8)
                cv2.imwrite(str(tmp_path / name / split / "images" / f"{split}{number}.png"), picture)
                cv2.imwrite(str(tmp_path / name / split / "masks" / f"{split}{number}.png"), mask)
        return tmp_path / name

    return made


def square(*levels):
    mask = np.zeros((32, 32), np.uint8)
    for k, level in enumerate(levels):
        mask[8:12, 8 + 4 * k : 12 + 4 * k] = level
    return mask


def test_looks_happen_every_n_steps_and_are_kept_everywhere(tmp_path, monkeypatch):
    """6 steps, a look every 2 and at the ends of epochs, after steps 3 and 6: four looks, one of them both."""
    train(configured("--recipe.look_every=2"), tmp_path)
    logged = scalars(tmp_path)
    values = [value for _, value in logged["val/selection"]]
    assert len(values) == 4
    kept = rpcanet.read_training(tmp_path / "best.safetensors")["looks"]
    assert kept == rpcanet.read_training(tmp_path / "last.safetensors")["looks"]
    assert kept["looks"] == len(values)
    assert kept["best"] == pytest.approx(max(values))
    assert kept["last"] == kept["mean"] == pytest.approx(values[-1])
    for name in ("best", "last", "mean"):
        assert logged[f"looks/{name}"][-1][1] == pytest.approx(kept[name])
        assert [step for step, _ in logged[f"looks/{name}"]] == [2, 3, 4, 6]
    arguments = ["--weights", str(tmp_path / "best.safetensors"), "--dataset=synthetic", "--count=1"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments, "--json", str(tmp_path / "a.json")])
    evaluate.main()
    assert json.loads((tmp_path / "a.json").read_text())["network"]["training"]["looks"] == kept


def test_nothing_anywhere_is_told_of_as_normal_and_then_warned_of(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(SelectionIoU, "anything", property(lambda metric: False))
    train(configured(f"--recipe.epochs={PATIENCE + 2}", "--data.train_count=2"), tmp_path)
    said = capsys.readouterr().out
    assert said.count("that is normal for the first 15 epochs") == 1
    assert said.count("Warning: after 15 epochs still no pixel is found anywhere") == 1
    assert "--recipe.loss batch_iou --recipe.learning_rate 5e-4" in said
    assert said.index("normal") < said.index("Warning")


def test_an_object_everywhere_is_warned_of_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(SelectionIoU, "everything", property(lambda metric: True))
    train(configured(f"--recipe.epochs={PATIENCE + 2}", "--data.train_count=2"), tmp_path)
    said = capsys.readouterr().out
    assert said.count("Warning: after 15 epochs every pixel is found an object") == 1


def test_a_network_that_finds_something_is_not_warned_of(tmp_path, monkeypatch, capsys):
    """Nor does it matter which loss it learns by."""
    monkeypatch.setattr(SelectionIoU, "anything", property(lambda metric: True))
    train(configured("--recipe.loss=batch_iou"), tmp_path)
    said = capsys.readouterr().out
    assert "No pixel" not in said
    assert "Warning" not in said
    assert rpcanet.read_training(tmp_path / "last.safetensors")["recipe"]["loss"] == "batch_iou"


@pytest.mark.parametrize(("name", "augment"), [("nudt_sirst", False), ("sirst", True)])
def test_a_recipe_starts_with_and_without_augmentation(folder, name, augment):
    config = ["--config", str(CONFIGS / f"{name}.yaml"), "--data.root", str(folder(square(255)))]
    splits = ["--data.train_split=train", "--data.validation_split=val", "--data.batch_size=2"]
    configuration = configuration_from(parser().parse_args([*config, *splits]))
    data = open_data(configuration.data, configuration.recipe)
    for pictures, turned in ((data.train, augment), (data.validation, False)):
        images = []
        for pictures.epoch in range(8):
            images.append(pictures[0].image)
        assert all(torch.equal(image, images[0]) for image in images) is not turned


def test_held_out_pictures_are_a_share_of_the_training_pictures_and_not_trained_on():
    configuration = configured("--data.train_count=10", "--data.held_out=0.3")
    data = open_data(configuration.data, configuration.recipe)
    train_names, held = ({sample.name for sample in part} for part in (data.train, data.validation))
    assert (len(train_names), len(held)) == (7, 3)
    assert not train_names & held
    assert all(name.startswith("train") for name in held)


@pytest.mark.parametrize("share", [0.01, 1.0, -0.5])
def test_a_share_that_leaves_no_picture_is_refused(share):
    configuration = configured("--data.train_count=10", f"--data.held_out={share}")
    with pytest.raises(ValueError, match=r"--data.held_out must leave pictures .* of 10; got"):
        open_data(configuration.data, configuration.recipe)


def test_labels_are_soft_in_training_and_two_level_in_validation(folder):
    root = folder(square(255, 102))
    configuration = configured("--data.name=folder", f"--data.root={root}", "--data.augment=false")
    data = open_data(configuration.data, configuration.recipe)
    assert data.train[0].mask.unique().tolist() == pytest.approx([0, 0.4, 1])
    assert data.validation[0].mask.unique().tolist() == [0, 1]


@pytest.mark.parametrize(("keep", "steps"), [("true", 4), ("false", 2)])
def test_the_last_batch_is_trained_on_where_it_is_kept(tmp_path, folder, keep, steps):
    """5 pictures in batches of 3 are 3 and 2."""
    options = ["--data.name=folder", f"--data.root={folder(square(255))}", "--data.batch_size=3"]
    train(configured(*options, f"--recipe.keep_last_batch={keep}", "--recipe.look_every=1"), tmp_path / "run")
    steps_taken = [step for step, _ in scalars(tmp_path / "run")["looks/last"]][-1]
    assert steps_taken == steps


@pytest.mark.parametrize(("least", "epochs"), [(0, 2), (2, 2), (5, 5)])
def test_a_short_run_is_lengthened_to_its_least_steps(tmp_path, folder, least, epochs):
    """5 pictures in batches of 3 are one full batch."""
    options = ["--data.name=folder", f"--data.root={folder(square(255))}", "--data.batch_size=3"]
    run = tmp_path / "run"
    train(configured(*options, "--recipe.epochs=2", f"--recipe.least_steps={least}"), run)
    assert json.loads((run / "run.json").read_text())["recipe"]["epochs"] == epochs
    assert len(scalars(run)["val/iou"]) == epochs
    assert rpcanet.read_training(run / "last.safetensors")["recipe"]["epochs"] == epochs


@pytest.mark.parametrize("mask", ["full", "inverted", "transparent"])
def test_suspect_masks_are_refused_unless_told(tmp_path, folder, mask):
    levels = {"full": np.full((32, 32), 255, np.uint8), "inverted": 255 - square(255)}
    clear = np.dstack([square(255)] * 3 + [np.zeros((32, 32), np.uint8)])
    root = folder(levels.get(mask, clear))
    options = ["--data.name=folder", f"--data.root={root}", "--recipe.epochs=1"]
    with pytest.raises(ValueError, match=r"train0|train.masks"):
        train(configured(*options), tmp_path / "refused")
    told = configured(*options, "--data.allow_suspect_masks=true")
    if mask == "full":  # where there is no false positive to draw a curve over either
        train(told, tmp_path / "told")
        assert (tmp_path / "told" / "last.safetensors").is_file()
    else:
        assert len(open_data(told.data, told.recipe).train) == 5


def test_a_run_goes_on_with_other_workers_and_a_moved_root(tmp_path, folder):
    root = folder(square(255))
    options = ["--data.name=folder", f"--data.root={root}"]
    train(configured(*options), tmp_path / "whole")
    half = configured(*options)
    _stopped_after_one_epoch(half, tmp_path / "parts")
    moved = root.rename(tmp_path / "moved")
    train(
        configured("--data.name=folder", f"--data.root={moved}", "--data.workers=1"), tmp_path / "parts", True
    )
    whole, parts = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def _stopped_after_one_epoch(configuration, out):
    class Stopped(Exception):  # noqa: N818 - no error of the run
        pass

    from unfoldkit.rpcanet.training.task import SegmentationTask

    def stop(task):
        if task.current_epoch == 1:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationTask, "on_train_epoch_start", stop)
        with pytest.raises(Stopped):
            train(configuration, out)


@pytest.mark.parametrize(
    "option",
    [
        "--recipe.seed=7",
        "--data.augment=false",
        "--data.size=48",
        "--data.batch_size=3",
        "--data.levels=full",
        "--recipe.loss=batch_iou",
    ],
)
def test_what_changes_results_must_stay(tmp_path, option):
    keep_configuration(configured(), tmp_path)
    name = option.partition("=")[0]
    with pytest.raises(ValueError, match=name):
        require_folder(configured(option), tmp_path, tmp_path / "last.ckpt", resume=True)


def test_a_run_that_is_older_than_an_option_goes_on_with_its_default(tmp_path):
    keep_configuration(configured(), tmp_path)
    stored = tmp_path / "config.yaml"
    stored.write_text(stored.read_text().replace("  least_steps: 0\n", ""))
    with pytest.raises(ValueError, match=r"--recipe.least_steps is 9, but the run in .* has 0"):
        require_folder(configured("--recipe.least_steps=9"), tmp_path, tmp_path / "last.ckpt", resume=True)
    require_folder(configured(), tmp_path, tmp_path / "last.ckpt", resume=True)
    keep_configuration(configured(), tmp_path)
    assert "least_steps: 0" in stored.read_text()


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true"])
def test_true_precisions_train_and_leave_weights_that_load(tmp_path, precision):
    configuration = configured("--recipe.epochs=1", "--recipe.look_every=1")
    machine = replace(configuration.machine, precision=precision)
    train(replace(configuration, machine=machine), tmp_path)
    net = rpcanet.load_weights(tmp_path / "last.safetensors")
    assert all(parameter.isfinite().all() for parameter in net.parameters())
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_other_precisions_are_refused_by_their_option(tmp_path):
    configuration = configured()
    machine = replace(configuration.machine, precision="8-true")
    with pytest.raises(ValueError, match=r"--machine\.precision must be one of 32-true, .*8-true"):
        train(replace(configuration, machine=machine), tmp_path)
    assert not list(tmp_path.iterdir())


def test_counts_of_nothing_are_refused_by_their_option(tmp_path):
    for option in ("machine.checkpoint_every", "recipe.validate_every", "recipe.epochs", "machine.devices"):
        with pytest.raises(ValueError, match=rf"--{option} must be at least 1.*got 0"):
            train(configured(f"--{option}=0"), tmp_path)


@pytest.mark.parametrize("option", ["recipe.look_every", "recipe.least_steps"])
def test_fewer_steps_than_none_are_refused(tmp_path, option):
    with pytest.raises(ValueError, match=rf"--{option} must be at least 0, got -1"):
        train(configured(f"--{option}=-1"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_batch_of_one_is_refused_by_its_option_where_batch_norm_needs_more(tmp_path):
    with pytest.raises(ValueError, match=r"--data\.batch_size must be at least 2 for rpcanet\+\+"):
        train(configured("--network.name=rpcanet++", "--data.batch_size=1"), tmp_path)
