"""Runs that are resumed: what was kept stays right, and what is at fault is said before the first step."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unfoldkit.rpcanet import read_training, train
from unfoldkit.rpcanet.training.task import SegmentationTask
from unfoldkit.tools.train import configuration_from, parser

OPTIONS = [
    *("--network.stages=1", "--network.channels=4", "--data.workers=0", "--machine.accelerator=cpu"),
    *("--data.size=32", "--data.train_count=8", "--data.validation_count=3", "--data.batch_size=2"),
    *("--recipe.epochs=2", "--recipe.learning_rate=0.005"),
]


def configured(*options):
    return configuration_from(parser().parse_args([*OPTIONS, *options]))


def stopped(configuration, out, step):
    """Train until a signal arrives in step `step`, the first being 1."""

    def signalled(task, *_):
        if task.global_step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationTask, "on_before_zero_grad", signalled)
        with pytest.raises(SystemExit):
            train(configuration, out)


def result(out):
    """All that a run keeps of weights and looks, but for its seconds."""
    record = json.loads((out / "run.json").read_text())
    files = [out / f"{name}.safetensors" for name in ("best", "last")]
    weights = [{key: x.tolist() for key, x in load_file(path).items()} for path in files]
    return [{**kept, "seconds": 0} for kept in (record, *map(read_training, files))], weights


@pytest.mark.parametrize(("look_every", "step"), [(3, 6), (1, 2)])
def test_a_signal_before_a_look_within_an_epoch_does_not_lose_it(tmp_path, look_every, step):
    configuration = configured(f"--recipe.look_every={look_every}")
    train(configuration, tmp_path / "whole")
    stopped(configuration, tmp_path / "stopped", step)
    train(configuration, tmp_path / "stopped", resume=True)
    assert result(tmp_path / "stopped") == result(tmp_path / "whole")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("run") / "finished"
    train(configured(), out)
    return out


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the folder of a finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def content(out):
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_finished_run_stays_as_it_is(run, capsys):
    before = content(run)
    net = train(configured("--machine.precision=bf16-mixed", "--data.root=elsewhere"), run, resume=True)
    assert content(run) == before
    assert f"{run}: the run is finished" in capsys.readouterr().out
    kept = load_file(run / "last.safetensors")
    assert all(torch.equal(kept[key], x) for key, x in net.state_dict().items())


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text('{"looks": ')])
def test_a_missing_record_of_a_finished_run_is_written_again(run, damage):
    before = result(run)
    damage(run / "run.json")
    train(configured(), run, resume=True)
    assert result(run) == before
