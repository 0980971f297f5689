"""Training from the command line's entry: it learns, keeps its results, and resumes to the same numbers."""

import json

import pytest
import torch
from safetensors.torch import load, load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unfoldkit import rpcanet
from unfoldkit.rpcanet import train
from unfoldkit.rpcanet.training.task import SegmentationTask
from unfoldkit.tools.train import configuration_from, parser

SMALL = ["--network.stages=2", "--network.channels=4", "--data.workers=0", "--machine.accelerator=cpu"]
SCENES = [
    *SMALL,
    "--data.size=32",
    "--data.train_count=16",
    "--data.validation_count=4",
    "--recipe.learning_rate=0.005",
]


def configured(*options):
    return configuration_from(parser().parse_args([*options]))


def logged(out):
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    scalars = {tag: [event.value for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return scalars, events.Tags()["images"]


class InterruptionError(RuntimeError):
    pass


def interrupt_at(monkeypatch, epoch):
    def stop(task):
        if task.current_epoch == epoch:
            raise InterruptionError

    monkeypatch.setattr(SegmentationTask, "on_train_epoch_start", stop)


def resumed_equals_uninterrupted(tmp_path, monkeypatch, configuration, epoch):
    train(configuration, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, epoch)
        with pytest.raises(InterruptionError):
            train(configuration, tmp_path / "parts")
    train(configuration, tmp_path / "parts", resume=True)
    for name in ("last.safetensors", "best.safetensors"):
        whole, parts = (load_file(tmp_path / run / name) for run in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_run_leaves_weights_logs_and_configuration(tmp_path):
    configuration = configured(*SCENES, "--recipe.epochs=2", "--data.mean=90", "--data.std=40")
    train(configuration, tmp_path)
    for name in ("best", "last"):
        net = rpcanet.load_weights(tmp_path / f"{name}.safetensors")
        assert net.architecture == {"stages": 2, "channels": 4, "mean": 90.0, "std": 40.0}
        assert rpcanet.read_training(tmp_path / f"{name}.safetensors")["recipe"]["epochs"] == 2
        assert (tmp_path / "checkpoints" / f"{name}.ckpt").is_file()
    scalars, images = logged(tmp_path)
    for tag in (
        "train/loss",
        "train/soft_iou",
        "train/fidelity",
        "train/learning_rate",
        "val/loss",
        "val/iou",
    ):
        assert scalars[tag], tag
    assert set(images) == {"val/input_mask_probability_background_object", "val/curves", "inside/spectrum"}
    again = configuration_from(parser().parse_args([f"--config={tmp_path / 'config.yaml'}"]))
    assert again == configuration


def test_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    resumed_equals_uninterrupted(tmp_path, monkeypatch, configured(*SCENES, "--recipe.epochs=3"), epoch=2)


def test_learns_on_generated_scenes(tmp_path):
    data = ("--data.size=48", "--data.train_count=64", "--data.validation_count=8", "--data.batch_size=4")
    learning = ("--network.channels=8", "--recipe.learning_rate=0.003", "--recipe.epochs=6")
    train(configured(*SMALL, *data, *learning), tmp_path)
    scalars, _ = logged(tmp_path)
    assert scalars["val/loss"][-1] < scalars["val/loss"][0]
    assert scalars["val/iou"][-1] > max(0.3, scalars["val/iou"][0])


@pytest.mark.slow
@pytest.mark.reference
def test_real_sirst_lowers_the_loss_raises_iou_and_resumes(reference_file, tmp_path, monkeypatch):
    configuration = configured(
        "--config=tools/configs/sirst_small.yaml",
        f"--data.root={reference_file('data/sirst')}",
        "--recipe.epochs=3",
        "--machine.accelerator=cpu",
    )
    resumed_equals_uninterrupted(tmp_path, monkeypatch, configuration, epoch=2)
    scalars, _ = logged(tmp_path / "whole")
    assert scalars["train/loss"][-1] < scalars["train/loss"][0]
    assert scalars["val/loss"][-1] < scalars["val/loss"][0]
    assert scalars["val/iou"][-1] > scalars["val/iou"][0]


def test_a_run_is_not_overwritten_nor_resumed_with_other_options(tmp_path):
    train(configured(*SCENES, "--recipe.epochs=1"), tmp_path)
    with pytest.raises(ValueError, match="holds a run already; add --resume"):
        train(configured(*SCENES, "--recipe.epochs=1"), tmp_path)
    with pytest.raises(ValueError, match=r"--recipe.epochs is 2, but the run in .* has 1"):
        train(configured(*SCENES, "--recipe.epochs=2"), tmp_path, resume=True)
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        train(configured(*SCENES), tmp_path / "other", resume=True)


def test_a_run_without_checkpoints_is_not_overwritten_either(tmp_path):
    configuration = configured(*SCENES, "--recipe.epochs=1", "--machine.checkpoint_every=5")
    train(configuration, tmp_path)
    weights = (tmp_path / "last.safetensors").read_bytes()
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()
    with pytest.raises(ValueError, match="holds a run already"):
        train(configuration, tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        train(configuration, tmp_path, resume=True)
    assert (tmp_path / "last.safetensors").read_bytes() == weights


def test_a_run_killed_between_its_first_weights_and_its_first_checkpoint_begins_anew(tmp_path, capsys):
    configuration = configured(*SCENES, "--recipe.epochs=1")
    train(configuration, tmp_path)
    whole = (tmp_path / "best.safetensors").read_bytes()
    for path in (*(tmp_path / "checkpoints").iterdir(), tmp_path / "run.json"):
        path.unlink()
    rpcanet.save_weights(rpcanet.build("rpcanet", stages=1, channels=2), tmp_path / "best.safetensors")
    train(configuration, tmp_path, resume=True)
    assert "ended before its first checkpoint; the run begins anew" in capsys.readouterr().out
    kept, expected = load_file(tmp_path / "best.safetensors"), load(whole)
    assert all(torch.equal(kept[name], value) for name, value in expected.items())


@pytest.mark.parametrize(("validate_every", "looks"), [(2, 2), (9, 1)])
def test_the_last_weights_are_those_of_the_last_epoch(tmp_path, validate_every, looks):
    options = ("--recipe.epochs=3", f"--recipe.validate_every={validate_every}")
    net = train(configured(*SCENES, *options), tmp_path)
    kept = rpcanet.load_weights(tmp_path / "last.safetensors").state_dict()
    assert all(torch.equal(kept[name], value.cpu()) for name, value in net.state_dict().items())
    assert len(json.loads((tmp_path / "run.json").read_text())["curve"]) == looks
