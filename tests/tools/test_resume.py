"""Runs that are resumed: what was kept stays right, and what is at fault is said before the first step."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
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
    tensors = [{key: x.tolist() for key, x in load_file(path).items()} for path in files]
    return [{**kept, "seconds": 0} for kept in (record, *map(read_training, files))], tensors


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


def weights(path):
    """What a weights file holds, whose metadata are in any order."""
    with safe_open(path, "pt") as file:
        return file.metadata(), {key: file.get_tensor(key).tolist() for key in file.keys()}  # noqa: SIM118


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


DAMAGES = [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9])]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folder of a run that was stopped in its second epoch."""
    out = tmp_path_factory.mktemp("run") / "interrupted"
    stopped(configured("--data.mean=90", "--data.std=40"), out, step=6)
    return out


@pytest.fixture
def part(interrupted, tmp_path):
    """A copy of the folder of an interrupted run."""
    return Path(shutil.copytree(interrupted, tmp_path / "part"))


def resumed_before_its_first_step(out):
    """Resume a run of `interrupted`, which ends where it would make a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SegmentationTask, "on_train_start", lambda task: sys.exit(77), raising=False)
        with pytest.raises(SystemExit, match="77"):
            train(configured("--data.mean=90", "--data.std=40"), out, resume=True)


@pytest.mark.parametrize("damage", DAMAGES)
def test_best_weights_are_written_again_before_a_resumed_run_goes_on(part, damage):
    before = weights(part / "best.safetensors")
    damage(part / "best.safetensors")
    resumed_before_its_first_step(part)
    assert weights(part / "best.safetensors") == before


def of_another_look(path):
    """A checkpoint of a look that was as good as one before."""
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["Selection"]["values"] *= 2
    torch.save(checkpoint, path)


@pytest.mark.parametrize("damage", [*DAMAGES, of_another_look])
def test_best_weights_that_nothing_holds_any_more_are_named_before_the_first_step(part, damage):
    (part / "best.safetensors").unlink()
    damage(part / "checkpoints" / "best.ckpt")
    before = content(part)
    with pytest.raises(
        ValueError, match=r"part/best.safetensors: missing or damaged, and .*best.ckpt does not"
    ):
        train(configured("--data.mean=90", "--data.std=40"), part, resume=True)
    assert content(part) == before


def test_best_weights_of_a_finished_run_are_written_again(run):
    before = weights(run / "best.safetensors")
    (run / "best.safetensors").unlink()
    train(configured(), run, resume=True)
    assert weights(run / "best.safetensors") == before


def test_a_run_that_was_stopped_before_its_first_look_goes_on(tmp_path):
    stopped(configured(), tmp_path, step=2)
    assert not (tmp_path / "best.safetensors").exists()
    train(configured(), tmp_path, resume=True)
    assert len(json.loads((tmp_path / "run.json").read_text())["curve"]) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
def test_an_accelerator_that_is_not_there_is_named_and_not_kept(part):
    before = content(part)
    options = ["--data.mean=90", "--data.std=40", "--machine.accelerator=gpu"]
    with pytest.raises(ValueError, match=r"--machine.accelerator gpu .*cannot be used here"):
        train(configured(*options), part, resume=True)
    assert content(part) == before


def test_data_that_are_not_there_are_not_kept(part):
    stored = (part / "config.yaml").read_text()
    before = stored.replace("name: synthetic", "name: sirst")
    (part / "config.yaml").write_text(before)
    options = [f"--config={part / 'config.yaml'}", f"--data.root={part / 'nowhere'}"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train(configuration_from(parser().parse_args(options)), part, resume=True)
    assert (part / "config.yaml").read_text() == before
