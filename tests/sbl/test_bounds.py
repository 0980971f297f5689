"""What no estimator can do better than, against its definition and against the estimators."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import math

import numpy as np
import pytest
import torch

from unfoldkit.sbl import (
    IRSOptions,
    SyntheticOptions,
    bilinear_bound,
    simulate,
)
from unfoldkit.sbl.simulation.experiments import IRSExperiment, SyntheticExperiment
from unfoldkit.sbl.simulation.figures import _curves_figure
from unfoldkit.sbl.simulation.references import irs_bound
from unfoldkit.sbl.simulation.statistics import pooled
from unfoldkit.sbl.systems import IRSMIMO
from unfoldkit.sbl.systems.irs_coefficients import (
    coefficient_variances,
    coefficients,
    gain_responses,
    prior_variances,
)


def test_a_bilinear_bound_needs_complex_matrices_that_fit():
    one = torch.ones(4, 2, 2, dtype=torch.complex128)
    with pytest.raises(ValueError, match="observed must be complex"):
        bilinear_bound(one.real, one, torch.tensor(1.0))
    with pytest.raises(ValueError, match="must agree"):
        bilinear_bound(one, one[..., :1], torch.tensor(1.0))


def test_the_bilinear_bound_is_the_weighted_information_inequality():
    """T K^-1 T^H with the expectations of the docstring taken over draws."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.complex128)

    B, D, s2 = random(7, 2, 3), random(5, 2, 3), 0.3
    a, b = random(200_000, 2), random(200_000, 3)
    eye_a, eye_b = torch.eye(2, dtype=B.dtype), torch.eye(3, dtype=B.dtype)
    with_a = torch.einsum("ij,zb->zibj", eye_a, b).flatten(1, 2)
    with_b = torch.einsum("za,ij->zaij", a, eye_b).flatten(1, 2)
    dg = torch.cat([with_a, with_b], -1)
    inner = dg @ dg.mH
    G = B.flatten(-2).mH @ B.flatten(-2)
    K = (inner @ G @ inner).mean(0) / s2 + 4 * torch.eye(6)
    T = inner.mean(0)
    expected = torch.trace(D.flatten(-2) @ T @ torch.linalg.inv(K) @ T.mH @ D.flatten(-2).mH).real
    assert float(bilinear_bound(B, D, torch.tensor(s2))) == pytest.approx(float(expected), rel=0.02)


@pytest.mark.parametrize("s2", [0.03, 0.3, 3.0])
def test_the_best_estimate_of_a_product_of_gains_stays_above_the_bilinear_bound(s2):
    """E[g | y] of y = g + noise, g = a b, by a quadrature over |a|, of which the rest is Gaussian."""
    generator = torch.Generator().manual_seed(1)
    a, b, n = torch.randn(3, 4000, generator=generator, dtype=torch.complex128)
    g = a * b
    y = g + math.sqrt(s2) * n
    levels = torch.from_numpy(-np.log1p(-(np.arange(4000) + 0.5) / 4000))  # |a|^2 at its quantiles
    total = levels + s2
    weights = (-(y.abs().square().unsqueeze(-1) / total) - total.log()).softmax(-1)
    best = y * (weights * levels / total).sum(-1)
    errors = (best - g).abs().square()
    one = torch.ones(1, 1, 1, dtype=torch.complex128)
    bound = float(bilinear_bound(one, one, torch.tensor(s2)))
    assert float(errors.mean()) > bound - 3 * float(errors.std()) / math.sqrt(len(errors))
    assert errors.mean() < (y / (1 + s2) - g).abs().square().mean()  # the linear genie's


@pytest.mark.parametrize(
    "sizes",
    [{}, {"bs": (4, 4), "ms": (2, 3), "irs": (4, 4), "grid": 6, "paths": 2}, {"bs": (2, 2), "grid": 6}],
)
def test_the_channel_of_an_irs_is_that_of_its_coefficients_and_of_its_gains(sizes):
    system = IRSMIMO(**sizes)
    rays = system.draw_rays([torch.Generator().manual_seed(k) for k in range(4)])
    training = system.draw_training(torch.Generator().manual_seed(9))
    channel = system.channel_of_rays(rays)
    cascade = system.cascade(channel, training)
    on_grid = system.channel_of(coefficients(system, rays), training)
    assert (on_grid - cascade).norm() < 1e-4 * cascade.norm()  # the cosines are drawn in single precision
    B, D = gain_responses(system, rays, training)
    a, b = (hop.gains.flatten(1) for hop in rays)
    torch.testing.assert_close(torch.einsum("ztnmab,za,zb->ztnm", D, a, b), cascade)
    torch.testing.assert_close(torch.einsum("zyab,za,zb->zy", B, a, b), system.received(channel, training))


def test_the_prior_of_an_irs_is_the_mean_over_directions():
    system = IRSMIMO(bs=4, ms=3, irs=8, grid=5)
    rays = system.draw_rays([torch.Generator().manual_seed(k) for k in range(4000)])
    mean = coefficient_variances(system, rays).mean(0)
    irs, ms, bs = prior_variances(system)
    expected = irs[:, None, None] * ms[:, None] * bs
    torch.testing.assert_close(mean.sum((0, 1)), expected.sum((0, 1)), rtol=0.1, atol=0)
    torch.testing.assert_close(mean, expected, rtol=0.5, atol=0)


def test_the_bound_of_an_irs_is_the_sum_over_its_patterns():
    system = IRSMIMO(bs=4, ms=3, irs=8, grid=5)
    rays = system.draw_rays([torch.Generator().manual_seed(k) for k in range(3)])
    training = system.draw_training(torch.Generator().manual_seed(9))
    s2 = torch.tensor([0.1, 1.0, 2.0])
    B, D = gain_responses(system, rays, training)
    whole = bilinear_bound(B, D.flatten(1, 3), s2)
    torch.testing.assert_close(irs_bound(system, rays, training, s2).sum(-1), whole)


def not_below(experiment, estimators, snrs_db, trials):
    bounds = experiment.run("bound", snrs_db, 0, range(trials))
    for name in estimators:
        for bound, scores in zip(bounds, experiment.run(name, snrs_db, 0, range(trials)), strict=True):
            references = bound["reference_energy"]
            least, spread = pooled(bound["error_energy"], references)
            found, error = pooled(scores["error_energy"], references)
            assert found > least - 3 * math.hypot(spread, error), name


def test_no_estimator_passes_the_bound_of_random_problems():
    small = SyntheticExperiment(rows=(6, 8), columns=(9, 9), sparsity=2)
    not_below(small, ["SVD", "AM", "PC0.8", "OLS", "genie", "OMP", "KOMP", "LMMSE"], [5.0, 25.0], 100)


@pytest.mark.parametrize("on_grid", [True, False])
def test_no_estimator_passes_the_bound_of_an_irs(on_grid):
    system = IRSMIMO(on_grid=on_grid)
    known = ["genie", "LMMSE"] if on_grid else []
    not_below(
        IRSExperiment(system, fresh_training=True), ["SVD", "AM", "PC0.8", "KOMP", *known], [4.0, 20.0], 50
    )


def test_references_are_refused_where_they_are_not_known(tmp_path):
    with pytest.raises(ValueError, match="--on_grid true"):
        simulate(IRSOptions(on_grid=False), tmp_path / "run", "genie", 1, "10", workers=1)
    assert not (tmp_path / "run").exists()


def test_the_bound_is_a_dashed_curve_beside_the_estimators(tmp_path):
    options = SyntheticOptions(rows="4,5", columns="6,6", sparsity="2")
    names = "bound,LS,LMMSE,sLMMSE,VAMP,genie"
    table = simulate(options, tmp_path, names, trials=2, snr="10,20", workers=1)
    assert "srr" not in table[0]
    assert "srr" in table[1]
    assert (tmp_path / "pooled_nmse.png").exists()
    curves = {row["estimator"]: [row] for row in table[:2]}
    styles = [line.get_linestyle() for line in _curves_figure(curves, "snr_db", "pooled_nmse").axes[0].lines]
    assert "--" in styles
