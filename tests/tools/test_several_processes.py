"""Several processes give the numbers of one: training under torchrun, simulation on a Dask cluster."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unfoldkit.sbl.simulation.shards import SHARD_TRIALS
from unfoldkit.tools import simulate

ROOT = Path(__file__).parents[2]
TRAINING = [
    *("--network.stages=2", "--network.channels=4", "--data.workers=0"),
    # Neither the pictures to train on nor those to validate on divide evenly among batches of two processes. The
    # last, incomplete batch is left out: processes cannot share it evenly, and train on less of it than one does.
    *("--data.size=32", "--data.train_count=11", "--data.validation_count=5", "--recipe.epochs=2"),
    "--recipe.keep_last_batch=false",
]
STEP_BY_STEP = "tests/helpers/train_step_by_step.py"
SIMULATION = ["synthetic", "--rows", "4,5", "--columns", "6,6", "--sparsity", "2", "--estimators", "SVD,AM"]
SIMULATION += ["--snr", "5,10,15,20", "--trials", "200"]


def environment():
    inherited = [path for path in [os.environ.get("PYTHONPATH")] if path]
    path = os.pathsep.join((str(ROOT), str(ROOT / "tools"), *inherited))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "NCCL_DEBUG": "INFO"}


def start(launcher, out, *options, script="tools/train.py", **variables):
    command = [sys.executable, *launcher, str(ROOT / script), *TRAINING, *options, f"--out={out}"]
    return subprocess.Popen(
        command, env=environment() | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def on_one_machine(out, *options, **others):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    return [start(launcher, out, *options, **others)]


def on_two_machines(out, *options, **others):
    """A torchrun for each of two machines, both this one; named apart, they may share a GPU under NCCL."""
    with contextlib.closing(socket.create_server(("localhost", 0))) as server:
        port = server.getsockname()[1]
    meeting = ("--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}")
    launcher = ("-m", "torch.distributed.run", *meeting)
    return [start(launcher, out, *options, NCCL_HOSTID=machine, **others) for machine in ("first", "second")]


def sharing_a_gpu(out, *options):
    """Two machines whose steps are not replayed: in a CUDA graph they would wait for turns at every collective."""
    return on_two_machines(out, *options, script=STEP_BY_STEP)


def outputs(runs):
    try:
        said = [run.communicate(timeout=400)[0] for run in runs]
    finally:
        for run in runs:
            run.terminate()
    for run, text in zip(runs, said, strict=True):
        assert run.returncode == 0, text
    return said


def logged(out):
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"] if tag[:4] == "val/"
    }


CPU = ["--machine.accelerator=cpu", "--machine.devices=1"]
GPU = ["--machine.accelerator=cuda", "--machine.devices=1"]
MIXED = [*GPU, "--machine.precision=bf16-mixed", "--network.channels=16"]  # by kernels from 16 channels on


@pytest.mark.slow
@pytest.mark.parametrize("started", [on_one_machine, on_two_machines])
def test_two_processes_train_and_validate_as_one(tmp_path, started):
    two_and_one(tmp_path, started, CPU)
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_steps_of_gpus_average_over_processes_what_one_sees(tmp_path):
    """As they are replayed there, but by the CPU."""
    two_and_one(tmp_path, partial(on_one_machine, script=STEP_BY_STEP), CPU)
    assert_same_run(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.parametrize("started", [on_one_machine, sharing_a_gpu])
@pytest.mark.parametrize("options", [GPU, MIXED], ids=["32-true", "bf16-mixed"])
def test_two_processes_on_gpus_train_and_validate_as_one(tmp_path, started, options):
    if torch.cuda.device_count() < (2 if started is on_one_machine else 1):
        pytest.skip("needs a GPU for each process of a machine")
    if started is on_one_machine and "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("needs GPUs to itself, without pytest -n: graphs that share them take minutes for a step")
    said = two_and_one(tmp_path, started, options)
    assert "NCCL INFO" in said
    assert "not replayed as CUDA graphs" not in said
    if options is GPU:
        assert_same_run(tmp_path / "one", tmp_path / "two")
        return
    one, two = logged(tmp_path / "one"), logged(tmp_path / "two")
    for name in ("val/loss", "val/soft_iou", "val/fidelity"):
        assert two[name] == pytest.approx(one[name], rel=2e-2), name


def two_and_one(folder, started, options):
    """Run by two processes, into `two`, then by one in batches twice as large, into `one`; what the first says."""
    said = outputs(started(folder / "two", *options, "--data.batch_size=2"))
    outputs([start((), folder / "one", *options, "--data.batch_size=4")])
    return said[0]


def assert_same_run(one_out, two_out):
    one, two = logged(one_out), logged(two_out)
    assert one.keys() == two.keys() >= {"val/iou", "val/loss", "val/pd", "val/fa", "val/auc"}
    for name, values in one.items():
        assert two[name] == pytest.approx(values, rel=1e-3, abs=1e-4, nan_ok=True), name
    first, second = (load_file(out / "last.safetensors") for out in (one_out, two_out))
    assert first["stages.0.irm.layers.1.num_batches_tracked"] == 2 * (11 // 4)
    for key, tensor in first.items():
        torch.testing.assert_close(second[key], tensor, rtol=1e-2, atol=1e-3, msg=key)


def points(out):
    table = json.loads((out / "results.json").read_text())["points"]
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in table]


@pytest.mark.slow
@pytest.mark.parametrize("victims", [0, 1], ids=["both workers live", "one is killed"])
def test_two_dask_workers_give_the_numbers_of_one_process(tmp_path, monkeypatch, victims):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    monkeypatch.setitem(SHARD_TRIALS, "cpu", 20)
    simulate.main([*SIMULATION, "--workers", "1", "--out", str(tmp_path / "one")])
    shards = tmp_path / "two" / "shards"
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        pids = [nanny.pid for nanny in cluster.workers.values()]
        killed = []

        def kill():
            while len(list(shards.glob("[!.]*.json"))) < 3:
                time.sleep(0.01)
            for pid in pids[:victims]:
                os.kill(pid, 9)
                killed.append(len(list(shards.glob("[!.]*.json"))))

        killer = threading.Thread(target=kill)
        killer.start()
        simulate.main([*SIMULATION, "--scheduler", cluster.scheduler_address, "--out", str(tmp_path / "two")])
        killer.join()
    assert len(killed) == victims
    assert all(done < 80 for done in killed)
    assert points(tmp_path / "two") == points(tmp_path / "one")
