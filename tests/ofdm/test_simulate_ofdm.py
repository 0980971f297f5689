"""The OFDM experiment on the command line: what it writes, that it resumes, and what it refuses."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json
import sys
from functools import wraps
from pathlib import Path

import pytest

from unfoldkit.sbl.simulation import shards
from unfoldkit.tools import simulate

CONFIGURATION = Path(__file__).parents[2] / "tools" / "configs" / "mimo_ofdm_chest.yaml"
SIZES = ["--users", "2", "--rows", "2", "--columns", "2", "--subcarriers", "24", "--covariance_drops", "6"]
SMALL = [*SIZES, "--trials", "3", "--snr", "0,20", "--estimators", "LS,LMMSE,LMMSE-t-f,AM,OffGrid,known"]


@pytest.fixture
def needs_sionna():
    pytest.importorskip("sionna.phy", reason="needs the extra unfoldkit[sionna]")


def run(out, *arguments):
    simulate.main(["ofdm", *SMALL, "--workers", "1", "--out", str(out), *arguments])
    return json.loads((out / "results.json").read_text())["points"]


def without_seconds(table):
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in table]


@pytest.mark.usefixtures("needs_sionna")
def test_it_writes_every_output_and_continues(tmp_path):
    table = run(tmp_path)
    assert len(table) == 12
    metrics = shards.METRICS["ofdm"] - {"error_energy", "reference_energy"}
    assert metrics <= set(table[0])
    for metric in ("nmse", "ber", "bler", "ser", "spectral_efficiency", "claimed_error", "seconds"):
        assert (tmp_path / f"{metric}.png").exists()
    rows = {(row["estimator"], row["snr_db"]): row for row in table}
    assert rows["known", 20.0]["pooled_nmse"] == rows["known", 20.0]["ber"] == 0
    assert rows["LMMSE", 0.0]["pooled_nmse"] < rows["LS", 0.0]["pooled_nmse"]
    for name in ("AM", "OffGrid"):
        assert rows[name, 20.0]["pooled_nmse"] < rows["LS", 20.0]["pooled_nmse"]
    assert all(row["pilots"] == 2 * 24 for row in table)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    assert without_seconds(run(tmp_path)) == without_seconds(table)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.usefixtures("needs_sionna")
def test_numbers_do_not_depend_on_blocks(tmp_path, monkeypatch):
    few = ["--estimators", "LS", "--trials", "3"]
    whole = without_seconds(run(tmp_path / "whole", *few))
    monkeypatch.setattr("unfoldkit.sbl.simulation.simulate.OFDM_TRIALS", 2)
    assert without_seconds(run(tmp_path / "blocks", *few)) == whole


@pytest.mark.usefixtures("needs_sionna")
def test_a_dask_cluster_gives_the_same_numbers(tmp_path):
    distributed = pytest.importorskip("distributed")
    few = ["--estimators", "LS", "--trials", "1", "--snr", "10"]
    here = without_seconds(run(tmp_path / "here", *few))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as cluster:
        there = run(tmp_path / "there", *few, "--scheduler", cluster.scheduler_address)
    assert without_seconds(there) == here


@pytest.mark.usefixtures("needs_sionna")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimators", "SVD"], "no estimator SVD; there are LS, LMMSE, LMMSE-t-f"),
        (["--pilot_symbols", "2,14"], "--pilot_symbols must lie between 0 and 13"),
        (["--pilot_symbols", "2,2"], "--pilot_symbols names 2 twice"),
        (["--users", "5"], "--subcarriers 24 must be a multiple of --users 5"),
        (["--rows", "0"], "--rows must be at least 1"),
        (["--speed", "-1"], "--speed must be positive"),
        (["--bits", "3"], "bits must be one of 2, 4, 6, 8"),
        (["--rate", "1.5"], "rate must be at least 0.2"),
        (["--estimators", "Unfolded:none.safetensors"], "none.safetensors"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "run", *arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_without_sionna_the_error_names_the_extra(tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("unfoldkit.sbl.ofdm.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sionna.phy", None)
    with pytest.raises(SystemExit):
        run(tmp_path / "run")
    assert "unfoldkit[sionna]" in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_configuration_is_the_reconstruction(monkeypatch):
    given = {}

    @wraps(simulate.simulate)
    def keep(options, **others):
        given.update(others, options=options)

    monkeypatch.setattr(simulate, "simulate", keep)
    simulate.main(["ofdm", "--config", str(CONFIGURATION), "--out", "nowhere"])
    options = given["options"]
    assert (options.users, options.rows * options.columns, options.symbols) == (4, 16, 14)
    assert (options.subcarriers, options.pilot_symbols) == (624, "2,11")
    assert given["snr"] == "-10,-5,0,5,10"
    assert given["trials"] >= 200
    assert options.covariance_drops == 600
