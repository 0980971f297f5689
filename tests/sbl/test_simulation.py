"""Simulations from a notebook: what they return, what they refuse, and which kept numbers they trust."""

import json
import math
import os

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unfoldkit.sbl import IRSOptions, SyntheticOptions, SystemOptions, simulate
from unfoldkit.sbl.simulation import shards
from unfoldkit.sbl.simulation.experiments import IRSExperiment, SyntheticExperiment
from unfoldkit.sbl.simulation.figures import _curves_figure, distribution_figure
from unfoldkit.sbl.simulation.options import decibels
from unfoldkit.sbl.simulation.processes import executor
from unfoldkit.sbl.simulation.results import _distributions, labels, steps_a_unit
from unfoldkit.sbl.simulation.simulate import _shards

SMALL = SyntheticOptions(rows="4,5", columns="6,6", sparsity="2")
UPLINK = IRSOptions(bs=4, ms=3, irs=8, grid=5, pilots=2, patterns=3)


@pytest.fixture
def no_figures(monkeypatch):
    """Figures take longer than simulations as small as these."""
    monkeypatch.setattr("unfoldkit.sbl.simulation.results.write_curves", lambda *_: None)


def run(out, options=SMALL, estimators="OLS", trials=2, snr="10,20", **others):
    return simulate(options, out, estimators, trials, snr, workers=1, **others)


def without_seconds(table):
    return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in table]


def test_the_table_is_returned_as_it_is_written(tmp_path):
    table = run(tmp_path, trials=3)
    assert json.loads((tmp_path / "results.json").read_text())["points"] == table
    settings = json.loads((tmp_path / "settings.json").read_text())
    assert settings["as_published"] is False
    assert settings["numbers_version"] == shards.NUMBERS_VERSION
    figures = {
        "nmse",
        "pooled_nmse",
        "median_nmse",
        "outage_above_1",
        "outage_above_0.1",
        "srr",
        "iterations",
    }
    assert figures | {f"{name}_standard_error" for name in figures} <= set(table[0])
    assert set(table[0]) == set((tmp_path / "results.csv").read_text().splitlines()[0].split(","))


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("options", [SMALL, UPLINK], ids=["synthetic", "irs"])
def test_figures_are_those_of_the_trials(tmp_path, options):
    [row] = run(tmp_path, options, "SVD", trials=5, snr="10")
    [(_, experiment)] = options.experiments()
    [scores] = experiment.run("SVD", [10.0], seed=0, trials=range(5))
    assert set(scores) == shards.METRICS[options.name]
    error, energy = scores["error_energy"], scores["reference_energy"]
    if options is SMALL:  # one reference a trial
        ratios = [e / w for e, w in zip(error, energy, strict=True)]
        assert scores["nmse"] == pytest.approx(ratios)
    assert row["pooled_nmse"] == pytest.approx(math.fsum(error) / math.fsum(energy))
    assert row["median_nmse"] == pytest.approx(np.median(scores["nmse"]))
    assert row["outage_above_0.1"] == np.mean([value > 0.1 for value in scores["nmse"]])


def test_the_distribution_is_drawn(tmp_path):
    run(tmp_path, estimators="SVD,OLS", trials=4)
    assert (tmp_path / "nmse_distribution.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["images"] == ["figures/nmse_distribution"]
    assert {"pooled_nmse/SVD", "median_nmse/OLS", "outage_above_1/SVD"} <= set(events.Tags()["scalars"])


def test_tensorboard_keeps_snrs_that_are_not_whole(tmp_path):
    table = run(tmp_path, snr="10,10.4,20")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    curve = events.Scalars("nmse/OLS by SNR x 10")
    assert [event.step for event in curve] == [100, 104, 200]
    assert [event.value for event in curve] == pytest.approx([row["nmse"] for row in table])
    assert "nmse/OLS" not in events.Tags()["scalars"]


@pytest.mark.parametrize(
    ("values", "scale"), [([8, 12], 1), ([-5.0, 300.0], 1), ([0.25, 10.4], 100), ([-300.0, 1e-300], 10**15)]
)
def test_steps_are_the_finest_of_the_values_in_64_bits(values, scale):
    assert steps_a_unit(values) == scale
    assert max(abs(value) * scale for value in values) < 2**63


def test_a_distribution_rises_at_each_trial_to_one():
    figure = distribution_figure({10.0: {"SVD": [0.5, 0.02]}, 20.0: {"SVD": [0.1, 0.0]}}, "SNR (dB)")
    first, second = figure.axes
    assert first.lines[0].get_xdata().tolist() == [0.02, 0.5]
    assert first.lines[0].get_ydata().tolist() == [0.5, 1.0]
    assert [line.get_xdata()[0] for line in first.lines[1:]] == [1.0, 0.1]
    assert second.get_title() == "SNR (dB): 20"


def test_unfolded_estimators_of_files_of_one_name_are_told_apart_in_figures():
    first, second = (f"Unfolded:{folder}/best.safetensors" for folder in ("ua", "ub"))
    row = {"snr_db": 10.0, "nmse": 0.1, "nmse_standard_error": 0.0}
    curves = _curves_figure({first: [row], second: [row], "AM": [row]}, "snr_db", "nmse")
    shown = [text.get_text() for text in curves.axes[0].get_legend().get_texts()]
    assert shown == ["Unfolded ua/best", "Unfolded ub/best", "AM"]
    kept = [
        (name, {"snr_db": 10.0}, {"nmse": [nmse]})
        for name, nmse in ((first, 0.1), (second, 0.2), ("AM", 0.3))
    ]
    found = _distributions(kept, "snr_db")
    assert found == {10.0: {"Unfolded ua/best": [0.1], "Unfolded ub/best": [0.2], "AM": [0.3]}}


@pytest.mark.parametrize(
    ("files", "called"),
    [
        (["x/a.safetensors", "x/b.safetensors"], ["a", "b"]),
        (["x/a.safetensors", "y/a.safetensors", "y/b.safetensors"], ["x/a", "y/a", "b"]),
        (["1/x/a", "2/x/a"], ["1/x/a", "2/x/a"]),
        (["/r/x/a", "/r/y/a"], ["x/a", "y/a"]),
    ],
)
def test_a_label_is_the_shortest_path_that_is_no_others(files, called):
    assert list(labels([f"Unfolded:{file}" for file in files]).values()) == [
        f"Unfolded {name}" for name in called
    ]


def test_labels_stay_different_where_no_end_of_a_path_is_its_own():
    names = [f"Unfolded:{file}" for file in ("a.safetensors", "./a.safetensors", "x/a.safetensors", "x/a")]
    assert len(set(labels(names).values())) == len(names)


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        (SMALL, {"estimators": "SVD,SVD"}, "--estimators names SVD twice"),
        (SMALL, {"snr": "10,20,10.0"}, "--snr names 10.0 twice"),
        (SMALL, {"snr": "inf"}, "--snr must be finite"),
        (SMALL, {"snr": "10,nan"}, "--snr must be finite"),
        (SMALL, {"snr": "-4000"}, "--snr must lie between"),
        (SMALL, {"snr": ""}, "--snr must be comma-separated numbers"),
        (SMALL, {"trials": 0}, "--trials"),
        (SMALL, {"estimators": "SVD,"}, "no estimator ;"),
        (SMALL, {"device": "tpu"}, "--device"),
        (SyntheticOptions(rows="4"), {}, "rows, columns and sparsity name 1, 3 and 1 factors"),
        (SyntheticOptions(columns="6,6,x"), {}, "--columns"),
        (SyntheticOptions(sparsity="16"), {}, "sparsity [16, 16, 16] exceeds"),
        (SyntheticOptions(sparsity="2,2"), {}, "--sparsity names 2 twice"),
        (SyntheticOptions(first_rows="8,8"), {}, "--first_rows names 8 twice"),
        (SyntheticOptions(sparsity="1,2"), {}, "only one quantity can vary"),
        (IRSOptions(bs="4x"), {"estimators": "SVD"}, "--bs must be a number or a pair"),
        (IRSOptions(grid=2), {"estimators": "SVD"}, "spread 3 exceeds the grid"),
        (UPLINK, {"estimators": "SVD,OLS"}, "no estimator OLS"),
        (UPLINK, {"estimators": "Unfolded:none.safetensors"}, "no such file"),
    ],
)
def test_what_is_refused_leaves_nothing(tmp_path, options, arguments, message):
    out = tmp_path / "run"
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        run(out, options, **arguments)
    assert message in str(refused.value)
    assert not out.exists()


def test_a_process_that_is_killed_is_said():
    with (
        pytest.raises(RuntimeError, match=r"was killed.*__main__.*workers=1; finished shards are kept"),
        executor(2, None) as processes,
    ):
        processes.submit(os._exit, 1).result()


def test_processes_are_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="--workers must be at least 1, got 0"):
        simulate(SMALL, tmp_path, "OLS", 1, "10", workers=0)


@pytest.mark.usefixtures("no_figures")
def test_an_estimator_that_refuses_the_problems_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise ValueError("not for such problems")

    monkeypatch.setattr(SyntheticExperiment, "run", refuse)
    with pytest.raises(ValueError, match="not for such problems"):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    assert len(run(tmp_path / "run", seed=7)) == 2  # other settings: nothing of the refused run is in the way


@pytest.mark.usefixtures("no_figures")
def test_snrs_that_are_nearly_the_same_are_kept_apart(tmp_path):
    close = "10,10.0000001"
    assert decibels(close) == [10.0, 10.0000001]
    together = run(tmp_path, snr=close)
    apart = [row for k, snr in enumerate(close.split(",")) for row in run(tmp_path / str(k), snr=snr)]
    assert without_seconds(together) == without_seconds(apart)
    assert len(list((tmp_path / "shards").iterdir())) == 2


def spoiled(content, how):
    stored = json.loads(content)
    if how == "of one trial less":
        stored["scores"]["nmse"].pop()
    elif how == "without a metric":
        del stored["scores"]["srr"]
    elif how == "with text":
        stored["scores"]["srr"][0] = "1"
    elif how == "of an earlier version":
        stored["settings"]["numbers_version"] -= 1
    elif how == "of other settings":
        stored["settings"]["seed"] = 1
    elif how == "of the first layout":
        stored = stored["scores"]
    return json.dumps(stored)


SPOILED = {
    "of one trial less": "not all trials",
    "without a metric": "not all metrics",
    "with text": "scores that are no numbers",
    "of an earlier version": f"numbers of version {shards.NUMBERS_VERSION - 1}, not {shards.NUMBERS_VERSION}",
    "of other settings": "numbers of other settings",
    "of the first layout": f"numbers of version 1, not {shards.NUMBERS_VERSION}",
}
BROKEN = {
    "empty": ("{}", "no scores"),
    "broken": ('{"scores', "no readable JSON"),
    "a list": ("[1]", "no scores"),
}


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("how", [*SPOILED, *BROKEN])
def test_a_shard_that_is_not_whole_or_of_this_version_is_named_and_computed_anew(tmp_path, capsys, how):
    expected = run(tmp_path)
    first, second = sorted((tmp_path / "shards").iterdir())
    other = {
        "empty": ("{}", "no scores"),
        "broken": ('{"scores', "no readable JSON"),
        "a list": ("[1]", "no scores"),
    }
    content, reason = other[how] if how in other else (spoiled(first.read_text(), how), SPOILED[how])
    first.write_text(content)
    kept = second.stat().st_mtime_ns
    capsys.readouterr()
    assert without_seconds(run(tmp_path)) == without_seconds(expected)
    said = capsys.readouterr().out
    assert f"computed anew, since they hold {reason}: {first.name}\n" in said
    assert second.stat().st_mtime_ns == kept
    run(tmp_path)
    assert "computed anew" not in capsys.readouterr().out


@pytest.mark.usefixtures("no_figures")
def test_numbers_of_another_version_are_computed_anew_and_said_in_one_line(tmp_path, monkeypatch, capsys):
    snr = "0,5,10,15"
    run(tmp_path, snr=snr)
    monkeypatch.setattr(shards, "NUMBERS_VERSION", shards.NUMBERS_VERSION + 1)
    monkeypatch.setattr("unfoldkit.sbl.simulation.simulate.NUMBERS_VERSION", shards.NUMBERS_VERSION)
    capsys.readouterr()
    run(tmp_path, snr=snr)
    lines = [line for line in capsys.readouterr().out.splitlines() if "computed anew" in line]
    assert len(lines) == 1
    assert "and 1 more" in lines[0]
    assert json.loads((tmp_path / "settings.json").read_text())["numbers_version"] == shards.NUMBERS_VERSION
    with pytest.raises(ValueError, match=r"other settings .*: seed\); choose another --out"):
        run(tmp_path, snr=snr, seed=1)


def test_a_worker_of_another_version_is_refused():
    with pytest.raises(ValueError, match="a worker computes numbers of version"):
        shards.run_shards([], shards.NUMBERS_VERSION + 1)


@pytest.mark.parametrize("content", ["[]", "{", ""])
def test_settings_that_cannot_be_read_are_named(tmp_path, content):
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(ValueError, match=r"settings\.json: .*remove it and run again"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("kind", "experiment", "estimator"),
    [(SyntheticOptions, SyntheticExperiment, "SVD"), (IRSOptions, IRSExperiment, "PC0.8")],
)
def test_the_published_form_reaches_every_shard_and_the_settings(kind, experiment, estimator):
    for published in (False, True):
        options = kind(as_published=published)
        [shard] = _shards(options, [estimator], 3, [10.0], 0, "cpu")
        assert isinstance(shard.experiment, experiment)
        assert shard.experiment.as_published is published
        assert options.settings()["as_published"] is published


@pytest.mark.usefixtures("no_figures")
def test_the_two_forms_are_not_mixed(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match=r"as_published\); choose another --out"):
        run(tmp_path, SyntheticOptions("4,5", "6,6", "2", as_published=True))


def test_arrays_are_the_same_as_number_and_as_text():
    assert SystemOptions(bs="16").system() == SystemOptions().system()
    assert IRSOptions(bs="16").settings() == IRSOptions().settings()
    assert SystemOptions(irs="4x4").system().irs == (4, 4)
