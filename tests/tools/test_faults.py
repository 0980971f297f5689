"""Long runs outlast what ends them: a killed run goes on, and ends in the same numbers."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unfoldkit.rpcanet import load_weights, train
from unfoldkit.rpcanet.inference.evaluation import answer
from unfoldkit.rpcanet.training import task
from unfoldkit.rpcanet.training.losses import LOSSES
from unfoldkit.rpcanet.training.task import SegmentationTask
from unfoldkit.tools import simulate
from unfoldkit.tools.train import configuration_from, parser

ROOT = Path(__file__).parents[2]
TRAINING = [
    *("--network.stages=1", "--network.channels=4", "--data.workers=0", "--machine.accelerator=cpu"),
    *("--data.size=32", "--data.train_count=12", "--data.validation_count=3", "--data.batch_size=2"),
    *("--recipe.epochs=3", "--recipe.learning_rate=0.005"),
]
SIMULATION = [
    "synthetic",
    "--rows",
    "4,5",
    "--columns",
    "6,6",
    "--sparsity",
    "2",
    "--estimators",
    "SVD,OLS",
]
SIMULATION += ["--snr", "5,10,15,20", "--trials", "100", "--workers", "1"]
PRELOADED = (
    "unfoldkit.tools.train",
    "unfoldkit.common.runs",
    "unfoldkit.sbl.simulation.simulate",
    "unfoldkit.sbl.simulation.figures",
    "unfoldkit.rpcanet.training.task",
    "unfoldkit.datasets.datamodule",
    "unfoldkit.sbl.simulation.experiments",
)
PRELOADED += ("torch.utils.tensorboard", "matplotlib.pyplot", "rich.progress", "torch._dynamo")


def configured():
    return configuration_from(parser().parse_args(TRAINING))


class Training:
    """A tiny training, to be started again and again."""

    target = staticmethod(train)

    def arguments(self, out):
        return configured(), out, (out / "config.yaml").exists()

    def check(self, out):
        """Whatever has its name is whole."""
        for path in out.glob("*.safetensors"):
            load_weights(path)
        for path in out.glob("checkpoints/*.ckpt"):
            assert torch.load(path, weights_only=True)["state_dict"]

    def result(self, out):
        assert not list(out.rglob(".*.part"))
        files = {name: load_file(out / f"{name}.safetensors") for name in ("best", "last")}
        return {f"{name} {key}": x.tolist() for name, tensors in files.items() for key, x in tensors.items()}


class Simulation:
    """A tiny simulation, to be started again and again."""

    target = staticmethod(simulate.main)

    def arguments(self, out):
        return ([*SIMULATION, "--out", str(out)],)

    def check(self, out):
        for path in [*out.glob("*.json"), *out.glob("shards/[!.]*.json")]:
            json.loads(path.read_text())

    def result(self, out):
        assert not list(out.rglob(".*.part"))
        rows = json.loads((out / "results.json").read_text())["points"]
        return [{key: x for key, x in row.items() if not key.startswith("seconds")} for row in rows]


@pytest.fixture(scope="module")
def processes():
    """Processes that begin with everything imported, so that a run is mostly the run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), str(ROOT / "tools"))))
        patch.setenv("OMP_NUM_THREADS", "1")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        first = context.Process(target=time.time)
        first.start()
        first.join()
        yield context


def killed(processes, run, out, seconds):
    """Whether a run had to be killed after so many seconds; else it has ended well."""
    process = processes.Process(target=run.target, args=run.arguments(out))
    process.start()
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        return True
    assert process.exitcode == 0
    return False


def outlasts_kills(processes, run, folder, kills):
    start = time.monotonic()
    assert not killed(processes, run, folder / "whole", None)
    duration, moments = time.monotonic() - start, random.Random(0)
    expected, done, runs = run.result(folder / "whole"), 0, 0
    while done < kills:
        out, runs, start, before = folder / f"killed {runs}", runs + 1, time.monotonic(), done
        while killed(processes, run, out, moments.uniform(0.05, 0.9) * duration):
            done += 1
            run.check(out)
            if done == kills:
                assert not killed(processes, run, out, None)
                break
        if done == before:  # the first run was slower than this one, which ended before its moment
            duration = time.monotonic() - start
        assert run.result(out) == expected


@pytest.mark.parametrize("run", [Training(), Simulation()], ids=["training", "simulation"])
def test_a_run_outlasts_two_kills(processes, run, tmp_path):
    outlasts_kills(processes, run, tmp_path, kills=2)


@pytest.mark.slow
@pytest.mark.parametrize("run", [Training(), Simulation()], ids=["training", "simulation"])
def test_a_run_outlasts_twenty_kills(processes, run, tmp_path):
    outlasts_kills(processes, run, tmp_path, kills=20)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The folder of an uninterrupted training in this process."""
    out = tmp_path_factory.mktemp("whole")
    train(configured(), out)
    return out


@pytest.fixture(scope="module")
def whole(whole_run):
    """What an uninterrupted training ends in."""
    return Training().result(whole_run)


def stopped_and_resumed(tmp_path, monkeypatch, step):
    """A run that a signal stops after `step` steps, and that is resumed; its exit status."""

    def signalled(task, *_):
        if task.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentationTask, "on_before_zero_grad", signalled)
        with pytest.raises(SystemExit) as ended:
            train(configured(), tmp_path / "stopped")
    train(configured(), tmp_path / "stopped", resume=True)
    return ended.value.code


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(2, id="first epoch", marks=pytest.mark.slow),
        pytest.param(8, id="amid an epoch"),
        pytest.param(12, id="last step of an epoch", marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_within_the_epoch_and_loses_no_step(tmp_path, monkeypatch, whole, step):
    taken = []
    step_taken = SegmentationTask.training_step

    def counted(task, batch, index):
        taken.append((task.current_epoch, *batch.name))
        return step_taken(task, batch, index)

    monkeypatch.setattr(SegmentationTask, "training_step", counted)
    assert stopped_and_resumed(tmp_path, monkeypatch, step) == 143
    assert len(taken) == len(set(taken)) == 3 * 6
    assert Training().result(tmp_path / "stopped") == whole


def test_a_full_disk_ends_a_run_with_its_last_checkpoint(tmp_path, monkeypatch, whole):
    replace, calls = Path.replace, []

    def fail_later(source, target):
        calls.append(target)
        if len(calls) > 7:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail_later)
        with pytest.raises(OSError, match=r"cannot be written \(No space left on device\)") as raised:
            train(configured(), tmp_path / "full")
    assert str(tmp_path / "full") in str(raised.value)
    Training().check(tmp_path / "full")
    train(configured(), tmp_path / "full", resume=True)
    assert Training().result(tmp_path / "full") == whole


READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


def run_where_it_is_read_only(folder, command):
    """A command for which `folder` lies on a read-only file system, for root too; skips where none can be made."""
    within = ["unshare", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, str(folder)]
    if shutil.which("unshare") is None or subprocess.run([*within, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount a folder read-only")
    return subprocess.run([*within, sys.executable, *command], capture_output=True, text=True, cwd=ROOT)


WRITERS = {
    "train.py": [*TRAINING, "--resume", "--out"],
    "simulate.py": [*SIMULATION, "--out"],
    "evaluate.py": ["--method=pssv", "--dataset=synthetic", "--size=32", "--count=2", "--json"],
    "predict.py": ["--method=pssv", str(ROOT / "tools/results/2026-11-23-demo-panels.jpg"), "--out"],
}


@pytest.mark.parametrize(
    "tool",
    [
        pytest.param(tool, marks=pytest.mark.slow if tool in ("train.py", "predict.py") else ())
        for tool in WRITERS
    ],
)
def test_a_read_only_folder_is_named_and_left_as_it_was(tmp_path, tool):
    if tool == "train.py":
        train(configured(), tmp_path)
        (tmp_path / "run.json").unlink()  # without which it is not finished
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    target = tmp_path / "found.json" if tool == "evaluate.py" else tmp_path
    done = run_where_it_is_read_only(tmp_path, [str(ROOT / "tools" / tool), *WRITERS[tool], str(target)])
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"{tool}: error: ")
    assert "Read-only file system" in said
    assert str(tmp_path) in said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_checkpoint_holds_all_that_a_run_needs(whole_run):
    stored = torch.load(whole_run / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["epoch"] == 2  # the last of three, whether it was better or not
    assert {
        "state_dict",
        "optimizer_states",
        "lr_schedulers",
        "loops",
        "epoch",
        "global_step",
    } <= stored.keys()
    provenance = stored["callbacks"]["Provenance"]
    assert {"configuration", "version", "torch", "numpy", "python"} == provenance.keys()
    assert provenance["configuration"]["recipe"]["epochs"] == 3


def within_seconds(seconds, condition):
    for _ in range(10 * seconds):
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def group_lives(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_simulation_leaves_with_the_conventional_status(tmp_path, number, status):
    arguments = [*SIMULATION, "--trials", "100000", "--out", str(tmp_path), "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tools" / "simulate.py"), *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell's background job ignores it
    )
    while not list(tmp_path.glob("shards/[!.]*.json")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == status
    assert "Traceback" not in said
    Simulation().check(tmp_path)
    assert within_seconds(10, lambda: not group_lives(process.pid)), "a worker stays behind"


def test_nan_in_training_names_step_batch_and_pictures(tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, "soft_iou", lambda logits, mask: logits.sum() * float("nan"))
    pattern = r"the loss is nan at step 0, batch 0 of epoch 0, pictures: train_\d{4}, train_\d{4}"
    with pytest.raises(FloatingPointError, match=pattern):
        train(configured(), tmp_path)


def test_an_answer_that_is_not_finite_in_validation_names_its_pictures(tmp_path, monkeypatch):
    def answers(net, image, padding):
        decomposition = answer(net, image, padding)
        return decomposition._replace(object=decomposition.object / 0)

    monkeypatch.setattr(task, "answer", answers)
    with pytest.raises(FloatingPointError, match=r"in validation the answers to val_\d{4}.* are not finite"):
        train(configured(), tmp_path)
