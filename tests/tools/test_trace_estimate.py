"""Watching an estimate from the command line."""

import json

import pytest
import torch
from scipy.io import loadmat
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unfoldkit.sbl import IRSOptions, SyntheticOptions, trace, trace_problem
from unfoldkit.sbl.simulation import trace_report
from unfoldkit.sbl.simulation.experiments import IRSExperiment, SyntheticExperiment, irs_estimator
from unfoldkit.sbl.simulation.trace_figures import hyperparameter_figure, support_figure
from unfoldkit.sbl.simulation.trace_problem import _iterative, pose_problem
from unfoldkit.tools import trace_estimate

SMALL = ["--rows", "6,7", "--columns", "8,8", "--sparsity", "2", "--estimators", "SVD,classic"]


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    out = tmp_path_factory.mktemp("trace")
    trace_estimate.main(["synthetic", *SMALL, "--trial", "3", "--out", str(out)])
    return out


def test_the_last_iteration_is_that_trial_of_a_simulation(traced):
    traced = json.loads((traced / "trace.json").read_text())["estimators"]
    experiment = SyntheticExperiment((6, 7), (8, 8), 2)
    for name, curves in traced.items():
        [scores] = experiment.run(name, [20.0], seed=0, trials=range(3, 4))
        assert len(curves["nmse"]) == len(curves["cost"]) == scores["iterations"][0]
        assert curves["nmse"][-1] == pytest.approx(scores["nmse"][0], rel=1e-6, abs=1e-12)


def test_each_estimator_is_a_run_in_tensorboard(traced):
    for name in ("SVD", "classic"):
        events = EventAccumulator(str(traced / "tensorboard" / name), {"scalars": 0}).Reload()
        quantities = {f"estimate/{quantity}" for quantity in ("nmse", "cost", "change", "noise_variance")}
        assert set(events.Tags()["scalars"]) == quantities
        assert events.Tags()["images"] == ["estimate/hyperparameters"]
    events = EventAccumulator(str(traced / "tensorboard" / "problem")).Reload()
    assert {"figures/convergence", "figures/support", "figures/channel"} <= set(events.Tags()["images"])


def test_matlab_file_and_report(traced):
    svd = loadmat(traced / "trace.mat")["e_SVD"][0, 0]
    assert svd["g1"].shape[1] == svd["g2"].shape[1] == 8
    assert svd["mean"].shape == (8, 8)
    text = (traced / "report.html").read_text()
    assert text.count("data:image/png;base64,") == 5
    assert "https:" not in text
    assert "<script" not in text


def test_a_channel_of_the_uplink(tmp_path):
    trace_estimate.main(["irs", "--estimators", "SVD", "--snr", "20", "--trial", "1", "--out", str(tmp_path)])
    curves = json.loads((tmp_path / "trace.json").read_text())["estimators"]["SVD"]
    [scores] = IRSExperiment().run("SVD", [20.0], seed=0, trials=range(1, 2))
    assert curves["nmse"][-1] == pytest.approx(scores["nmse"][0], rel=1e-6)
    assert curves["nmse"][-1] < curves["nmse"][0]


def test_figures_mark_the_true_support_and_name_their_axes():
    path, support = (
        [torch.rand(5, 4), torch.rand(5, 3)],
        [torch.tensor([1, 0, 0, 1]).bool(), torch.ones(3).bool()],
    )
    first, second = hyperparameter_figure(path, support).axes[:2]
    assert first.lines[0].get_xdata().tolist() == [0, 3]
    assert (first.get_ylabel(), second.get_xlabel()) == ("iteration", "index in factor 2")
    bars = support_figure({"SVD": torch.eye(4, 3)}, support).axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


def test_estimators_that_do_not_iterate_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        trace_estimate.main(["synthetic", "--estimators", "SVD,OMP", "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert "no estimator OMP that iterates; there are SVD, AM" in capsys.readouterr().err


def test_a_trace_is_returned_with_its_problem_and_page(tmp_path, monkeypatch):
    for figures in ("_show", "_log"):  # they take longer than the rest
        monkeypatch.setattr(trace_report, figures, lambda *_: None)
    options = SyntheticOptions(rows="4,5", columns="6,6", sparsity="2", known_noise=False)
    traced = trace_problem(options, tmp_path, "SVD", 20.0, trial=1)
    assert traced.report == tmp_path / "report.html"
    assert traced.report.is_file()
    assert traced.problem.noise_variance is None
    stored = json.loads((tmp_path / "trace.json").read_text())
    assert stored["estimators"]["SVD"]["nmse"] == traced.nmse["SVD"].tolist()
    assert stored["settings"]["known_noise"] is stored["settings"]["as_published"] is False


def test_as_published_svd_prunes_at_high_snr_as_in_a_simulation():
    options = IRSOptions(bs=4, ms=3, irs=8, grid=5, pilots=2, patterns=3, as_published=True)
    [(_, experiment)] = options.experiments()
    for snr_db in (24.0, 26.0):
        posed, method = pose_problem(options, snr_db), _iterative(options, "SVD", snr_db)
        kept = trace(method, posed.factors, posed.y, posed.noise_variance)
        [scores] = experiment.run("SVD", [snr_db], seed=0, trials=range(1))
        nmse = posed.nmse(posed.seen(kept.mean[-1]), posed.truth).item()
        assert nmse == pytest.approx(scores["nmse"][0], rel=1e-6)
        assert method.floor == 1e-4
        assert (method.usual_pruning() if method.pruning is None else method.pruning) == (snr_db > 25) * 1e-3


def test_estimators_of_an_earlier_trace_are_not_left_beside_this_one(tmp_path):
    options = SyntheticOptions(rows="4,5", columns="6,6", sparsity="2")
    trace_problem(options, tmp_path, "SVD,AM", 20.0)
    trace_problem(options, tmp_path, "SVD", 10.0)
    assert {path.name for path in (tmp_path / "tensorboard").iterdir()} == {"problem", "SVD"}
    pictures = {path.name for path in (tmp_path / "figures").glob("hyperparameters_*")}
    assert pictures == {"hyperparameters_SVD.png"}


def test_pilots_of_a_trial_are_those_of_a_simulation_that_draws_them_anew():
    options = IRSOptions(bs=4, ms=3, irs=8, grid=5, pilots=2, patterns=3, fresh_training=True)
    posed = pose_problem(options, 15.0, trial=2, seed=3)
    kept = trace(irs_estimator("SVD"), posed.factors, posed.y, posed.noise_variance)
    [(_, experiment)] = options.experiments()
    [scores] = experiment.run("SVD", [15.0], seed=3, trials=range(2, 3))
    assert posed.nmse(posed.seen(kept.mean[-1]), posed.truth).item() == pytest.approx(
        scores["nmse"][0], rel=1e-6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--snr", ".inf"], "--snr must be finite"),
        (["--trial", "-1"], "--trial must be at least 0"),
        (["--estimators", "SVD,SVD"], "--estimators names SVD twice"),
        (["--sparsity", "1,2"], "one problem is traced"),
        (["--rows", "4"], "rows, columns and sparsity"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        trace_estimate.main(["synthetic", *arguments, "--out", str(tmp_path)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())
