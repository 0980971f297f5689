"""The command line of the experiments."""

import csv
import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unfoldkit.common.files import write_whole
from unfoldkit.sbl import UnfoldedKroSBL, save_estimator
from unfoldkit.sbl.simulation import shards
from unfoldkit.sbl.simulation.experiments import IRSExperiment, SyntheticExperiment
from unfoldkit.sbl.simulation.processes import executor
from unfoldkit.tools import simulate

SMALL = ["--rows", "4,5", "--columns", "6,6", "--sparsity", "2", "--snr", "10,20", "--estimators", "SVD,OLS"]


def run(out, *arguments, experiment="synthetic", small=SMALL):
    simulate.main([experiment, *small, "--workers", "1", "--out", str(out), *arguments])


def points(out):
    """What a run measured, its seconds aside."""
    table = json.loads((out / "results.json").read_text())["points"]
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in table]


def test_writes_tables_curves_and_settings(tmp_path):
    run(tmp_path, "--trials", "3")
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["settings"]["seed"] == 0
    with (tmp_path / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["estimator"], row["snr_db"], row["trials"]) for row in rows] == [
        ("SVD", "10.0", "3"),
        ("OLS", "10.0", "3"),
        ("SVD", "20.0", "3"),
        ("OLS", "20.0", "3"),
    ]
    assert {"nmse", "nmse_standard_error", "srr", "seconds", "iterations"} <= set(rows[0])
    for metric in ("nmse", "srr", "seconds"):
        assert (tmp_path / f"{metric}.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    curve = events.Scalars("nmse/SVD")
    assert [event.step for event in curve] == [10, 20]
    assert curve[0].value == pytest.approx(float(rows[0]["nmse"]), rel=1e-5)


def test_an_interrupted_run_continues(tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run(whole, "--trials", "2")
    write, written = write_whole, []

    def fail_after_two(path, text):
        if path.parent.name == "shards" and len(written) == 2:
            raise KeyboardInterrupt
        write(path, text)
        if path.parent.name == "shards":
            written.append(path)

    monkeypatch.setattr(shards, "write_whole", fail_after_two)
    with pytest.raises(SystemExit) as ended:
        run(broken, "--trials", "2")
    assert ended.value.code == 130
    assert sorted((broken / "shards").iterdir()) == sorted(written)
    kept = {path: path.stat().st_mtime_ns for path in written}
    monkeypatch.undo()
    run(broken, "--trials", "2")
    assert {path: path.stat().st_mtime_ns for path in written} == kept
    assert points(broken) == points(whole)


def test_numbers_do_not_depend_on_workers_or_blocks(tmp_path, monkeypatch):
    run(tmp_path / "one", "--trials", "5")
    run(tmp_path / "two", "--trials", "5", "--workers", "2")
    assert points(tmp_path / "one") == points(tmp_path / "two")
    monkeypatch.setitem(shards.SHARD_TRIALS, "cpu", 2)
    run(tmp_path / "blocks", "--trials", "5")
    for row, same in zip(points(tmp_path / "blocks"), points(tmp_path / "one"), strict=True):
        assert row.pop("estimator") == same.pop("estimator")
        assert row == pytest.approx(same, rel=1e-9)


def test_a_dask_cluster_gives_the_same_numbers(tmp_path):
    distributed = pytest.importorskip("distributed")
    run(tmp_path / "local", "--trials", "2")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        run(tmp_path / "dask", "--trials", "2", "--scheduler", cluster.scheduler_address)
    assert points(tmp_path / "dask") == points(tmp_path / "local")


@pytest.mark.parametrize(("fault", "status"), [(OSError("disk full"), 2), (SystemExit(143), 143)])
def test_what_ends_a_run_on_a_dask_cluster_is_told_as_it_is(tmp_path, monkeypatch, capfd, fault, status):
    distributed = pytest.importorskip("distributed")

    def fail(*_):
        raise fault

    monkeypatch.setattr(shards, "write_whole", fail)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        pytest.raises(SystemExit) as ended,
    ):
        run(tmp_path, "--trials", "2", "--scheduler", cluster.scheduler_address)
    assert ended.value.code == status
    error = capfd.readouterr().err
    assert error == ("simulate.py: error: disk full\n" if status == 2 else "")


def test_a_lost_dask_scheduler_is_one_error(caplog):
    distributed = pytest.importorskip("distributed")

    def lose(cluster):
        with executor(None, cluster.scheduler_address) as there:
            waiting = there.submit(abs, -1)
            cluster.close()
            waiting.result(timeout=60)

    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        pytest.raises(ConnectionError, match=f"{cluster.scheduler_address}: this Dask scheduler was lost"),
    ):
        lose(cluster)
    assert not [record for record in caplog.records if record.name == "distributed.client"]


def test_irs(tmp_path):
    sizes = ["--bs", "4", "--ms", "3", "--irs", "4x4", "--grid", "5", "--pilots", "2", "--patterns", "3"]
    small = ["--trials", "2", "--snr", "15", "--estimators", "SVD,KOMP", "--fresh_training", "true", *sizes]
    run(tmp_path, experiment="irs", small=small)
    assert {row["estimator"] for row in points(tmp_path)} == {"SVD", "KOMP"}
    assert (tmp_path / "ser.png").exists()
    assert not (tmp_path / "srr.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimators", "SVD,nonsense"], "nonsense"),
        (["--trials", "0"], "--trials"),
        (["--snr", "ten"], "--snr"),
        (["--snr", "10,inf"], "--snr must be finite"),
        (["--estimators", "SVD,SVD"], "--estimators names SVD twice"),
        (["--rows", "4"], "rows"),
        (["--scheduler", "tcp://127.0.0.1:1"], "scheduler"),
        (["--trials", "many"], "int"),
    ],
)
def test_user_errors_are_one_line(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, *arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error.strip().splitlines()[-1]
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_a_folder_keeps_one_run(tmp_path, capsys):
    run(tmp_path, "--trials", "1")
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, "--trials", "1", "--seed", "1")
    assert stopped.value.code == 2
    assert "another --out" in capsys.readouterr().err


def test_only_one_quantity_varies(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(tmp_path, "--trials", "1", "--sparsity", "1,2")
    assert "only one quantity" in capsys.readouterr().err


def test_a_gpu_solves_the_snrs_of_an_estimator_in_one_batch():
    def planned(device):
        experiment = SyntheticExperiment(device=device)
        return [
            shards.Shard(experiment, name, {"snr_db": snr_db}, 0, range(3))
            for snr_db in (0.0, 10.0)
            for name in ("SVD", "AM")
        ]

    assert [len(batch) for batch in shards.batches(planned("cpu"))] == [1, 1, 1, 1]
    together = list(shards.batches(planned("cuda")))
    assert [[shard.estimator for shard in batch] for batch in together] == [["SVD", "SVD"], ["AM", "AM"]]


def test_several_snrs_in_one_batch_give_what_each_gives():
    experiment = IRSExperiment()
    together = experiment.run("SVD", [8.0, 20.0, 30.0], 0, range(2))
    for snr_db, scores in zip((8.0, 20.0, 30.0), together, strict=True):
        [alone] = experiment.run("SVD", [snr_db], 0, range(2))
        for metric in ("nmse", "ser", "iterations"):
            assert scores[metric] == pytest.approx(alone[metric], rel=1e-9)


def test_an_unfolded_estimator_comes_from_its_file(tmp_path, capsys):
    weights = tmp_path / "weights.safetensors"
    save_estimator(UnfoldedKroSBL(iterations=2), weights)
    sizes = ["--bs", "4", "--ms", "3", "--irs", "8", "--grid", "5", "--pilots", "2", "--patterns", "3"]
    small = ["--trials", "2", "--snr", "15", *sizes]
    run(tmp_path / "run", "--estimators", f"SVD,Unfolded:{weights}", experiment="irs", small=small)
    assert [row["estimator"] for row in points(tmp_path / "run")] == ["SVD", f"Unfolded:{weights}"]
    kept = len(list((tmp_path / "run" / "shards").iterdir()))
    save_estimator(UnfoldedKroSBL(iterations=3), weights)
    shards.label.cache_clear()  # as in a new process
    run(tmp_path / "run", "--estimators", f"SVD,Unfolded:{weights}", experiment="irs", small=small)
    assert len(list((tmp_path / "run" / "shards").iterdir())) == kept + 1  # other weights, another shard
    with pytest.raises(SystemExit):
        run(tmp_path / "none", "--estimators", "Unfolded:none.safetensors", experiment="irs", small=small)
    assert "none.safetensors: no such file" in capsys.readouterr().err
