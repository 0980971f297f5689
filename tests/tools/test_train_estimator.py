"""Training an estimator from its command line's entry: what it leaves, and that it resumes to the same numbers."""

import re

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unfoldkit.sbl import load_estimator, train_estimator
from unfoldkit.sbl.training.task import EstimationTask
from unfoldkit.tools.train_estimator import configuration_from, parser

SMALL = [
    *("--system.bs=4", "--system.ms=3", "--system.irs=8", "--system.grid=6", "--system.pilots=2"),
    *("--system.patterns=3", "--estimator.iterations=2", "--machine.accelerator=cpu", "--recipe.steps=2"),
    *("--recipe.batch_size=8", "--recipe.validation_trials=10", "--recipe.validation_snr=[5,15]"),
]


def configured(*options):
    return configuration_from(parser().parse_args([*SMALL, *options]))


def test_run_leaves_weights_logs_and_configuration(tmp_path):
    returned = train_estimator(configured("--recipe.epochs=2", "--estimator.neighbours=1"), tmp_path)
    for name in ("best", "last"):
        assert load_estimator(tmp_path / f"{name}.safetensors").architecture["neighbours"] == 1
    best = load_file(tmp_path / "best.safetensors")
    assert all(torch.equal(best[key], value) for key, value in returned.state_dict().items())
    scalars = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Tags()["scalars"]
    expected = {"train/loss", "train/learning_rate", "val/nmse_5dB", "val/nmse_15dB", "val/nmse_db"}
    assert expected <= set(scalars)
    again = parser().parse_args([f"--config={tmp_path / 'config.yaml'}"])
    assert configuration_from(again).estimator.neighbours == 1


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    configuration = configured("--recipe.epochs=3")
    train_estimator(configuration, tmp_path / "whole")

    def stop(task):
        if task.current_epoch == 2:
            raise InterruptedError

    with monkeypatch.context() as patch:
        patch.setattr(EstimationTask, "on_train_epoch_start", stop)
        with pytest.raises(InterruptedError):
            train_estimator(configuration, tmp_path / "parts")
    train_estimator(configuration, tmp_path / "parts", resume=True)
    whole, parts = (load_file(tmp_path / run / "last.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_fixed_parameters_keep_their_value(tmp_path):
    train_estimator(configured("--recipe.epochs=1", '--recipe.fixed=["sharpness"]'), tmp_path)
    net = load_estimator(tmp_path / "last.safetensors")
    assert torch.equal(net.sharpness, torch.ones(2))
    assert not torch.equal(net.exponent, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ('--recipe.fixed=["nonsense"]', "no parameter nonsense"),
        ("--recipe.epochs=0", "--recipe.epochs must be at least 1, got 0"),
        ("--recipe.steps=0", "--recipe.steps must be at least 1, got 0"),
        ("--recipe.validation_snr=[]", "--recipe.validation_snr names no SNR"),
        ("--system.bs=4x", "--bs must be a number or a pair"),
        ("--system.spread=7", "spread 7 exceeds the grid of 6"),
        ("--estimator.iterations=0", "iterations must be at least 1"),
    ],
)
def test_what_is_refused_is_named_and_leaves_nothing(tmp_path, option, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        train_estimator(configured(option), tmp_path)
    assert not list(tmp_path.iterdir())


def test_planar_arrays_are_trained_on(tmp_path):
    train_estimator(
        configured("--recipe.epochs=1", "--system.irs=4x2", "--system.ms=2x2", "--system.bs=2x2"), tmp_path
    )
    assert load_estimator(tmp_path / "best.safetensors").architecture["factors"] == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
def test_an_accelerator_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"--machine.accelerator gpu .*cannot be used here"):
        train_estimator(configured("--machine.accelerator=gpu"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
