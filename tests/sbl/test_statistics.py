"""Figures of many trials against what their definitions and a bootstrap by resampling give."""

import numpy as np
import pytest

from unfoldkit.sbl.simulation.statistics import mean, median, pooled, summary


def heavy_tailed(count):
    rng = np.random.default_rng(0)
    return rng.lognormal(-3, 2, count), rng.gamma(4, size=count)


def resampled(statistic, *samples):
    """The standard error by bootstrap over trials."""
    rng = np.random.default_rng(1)
    count = len(samples[0])
    draws = (rng.integers(0, count, count) for _ in range(4000))
    return np.std([statistic(*(sample[draw] for sample in samples)) for draw in draws])


@pytest.mark.parametrize("count", [50, 201])
def test_standard_errors_are_those_of_resampling(count):
    nmse, energy = heavy_tailed(count)
    assert mean(nmse)[1] == pytest.approx(resampled(np.mean, nmse), rel=0.05)
    assert median(nmse)[1] == pytest.approx(resampled(np.median, nmse), rel=0.05)
    light = np.random.default_rng(2).gamma(4, size=count) * energy
    ratio = resampled(lambda e, w: e.sum() / w.sum(), light, energy)
    assert pooled(light, energy)[1] == pytest.approx(ratio, rel=0.05)


def test_one_trial_that_nulls_the_reference_rules_the_mean_alone():
    energy = [100.0] * 99 + [0.01]
    error = [1.0] * 99 + [0.73]
    nmse = [e / w for e, w in zip(error, energy, strict=True)]
    found = summary({"nmse": nmse, "error_energy": error, "reference_energy": energy})
    assert found["nmse"] == pytest.approx(0.7399)
    assert found["pooled_nmse"] == pytest.approx(99.73 / 9900.01)
    assert found["median_nmse"] == pytest.approx(0.01)
    assert found["outage_above_1"] == found["outage_above_0.1"] == pytest.approx(0.01)
    assert found["outage_above_1_standard_error"] == pytest.approx((0.01 * 0.99 / 99) ** 0.5)


def test_a_trial_that_is_no_number_counts_as_an_outage():
    scores = {"nmse": [0.5, float("nan")], "error_energy": [1.0, 1.0], "reference_energy": [2.0, 2.0]}
    found = summary(scores)
    assert (found["outage_above_1"], found["outage_above_0.1"]) == (0.5, 1.0)


def test_one_trial_has_no_spread():
    found = summary({"nmse": [0.3], "error_energy": [3.0], "reference_energy": [10.0], "srr": [1.0]})
    assert {found[name] for name in found if name.endswith("_standard_error")} == {0.0}
    assert found["nmse"] == found["pooled_nmse"] == found["median_nmse"] == 0.3
