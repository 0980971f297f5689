"""Arrays whose elements have other gains than the dictionary says, and what learning them wins back."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import math

import pytest
import torch

from unfoldkit.sbl import AMKroSBL, PCKroSBL, calibrate
from unfoldkit.sbl.calibration import _gains, _normal
from unfoldkit.sbl.systems import IRSMIMO, observe

SYSTEM, ARRAY = IRSMIMO(), 2  # the base station's is the last factor
ESTIMATORS = {"AM": AMKroSBL(), "PC": PCKroSBL(0.8, coupled=(0, 2))}


def uplinks(gains, snr_db, count=30):
    """y, its noise-free part, the noise variance and the nominal factors, through an array of these gains."""
    generators = [torch.Generator().manual_seed(k) for k in range(count)]
    training = SYSTEM.draw_training(torch.Generator().manual_seed(99))
    factors = SYSTEM.factors(training)
    received = SYSTEM.received(SYSTEM.draw_channels(generators), training)
    rows = [A.shape[0] for A in factors]
    clean = (received.unflatten(-1, rows) * gains).flatten(1)
    y, s2 = observe(clean, torch.stack([SYSTEM.draw_noise(g) for g in generators]), snr_db)
    return y, clean, s2, list(factors)


def phase_errors(degrees):
    generator = torch.Generator().manual_seed(5)
    errors = torch.randn(16, generator=generator, dtype=torch.float64)
    return torch.polar(torch.ones_like(errors), math.radians(degrees) * errors)


def error_db(estimate, factors, clean):
    left = estimate.functional(factors).mean.flatten(1) - clean
    return 10 * math.log10(left.abs().square().sum() / clean.abs().square().sum())


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("snr_db", [10.0, 20.0, 30.0])
def test_it_wins_back_what_a_phase_error_of_ten_degrees_costs(name, snr_db):
    gains, estimator = phase_errors(10), ESTIMATORS[name]
    y, clean, s2, factors = uplinks(gains, snr_db)
    true = [*factors[:ARRAY], gains.unsqueeze(-1) * factors[ARRAY]]
    nominal = error_db(estimator(factors, y, s2), factors, clean)
    known = error_db(estimator(true, y, s2), true, clean)
    found = calibrate(estimator, factors, y, s2, factor=ARRAY)
    refined = error_db(found.estimate, found.factors, clean)
    assert nominal > known + 5
    assert refined < known + 0.5
    torch.testing.assert_close(found.gains.abs(), torch.ones(16, dtype=torch.float64))
    assert (found.gains * gains.conj()).angle().std() < math.radians(10) / 5


def test_moduli_are_learned_too():
    moduli = 1 + 0.1 * torch.randn(16, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    y, clean, s2, factors = uplinks(_normal(phase_errors(10) * moduli), 20.0)
    phases = calibrate(AMKroSBL(), factors, y, s2, factor=ARRAY)
    both = calibrate(AMKroSBL(), factors, y, s2, factor=ARRAY, unit_modulus=False)
    by_phases = error_db(phases.estimate, phases.factors, clean)
    assert error_db(both.estimate, both.factors, clean) < by_phases - 5


def test_an_array_without_errors_is_left_as_it_is():
    y, clean, s2, factors = uplinks(phase_errors(0), 20.0)
    found = calibrate(AMKroSBL(), factors, y, s2, factor=ARRAY)
    plain = error_db(AMKroSBL()(factors, y, s2), factors, clean)
    assert error_db(found.estimate, found.factors, clean) < plain + 0.3


def test_the_step_is_the_minimiser_of_the_expected_misfit():
    """Against the gradient of E||y - diag(d) A x||^2, with the posterior's covariance written out."""
    generator = torch.Generator().manual_seed(0)
    A, B = (torch.randn(m, n, generator=generator, dtype=torch.complex128) for m, n in ((4, 5), (3, 3)))
    y = torch.randn(12, generator=generator, dtype=torch.complex128)
    estimate = AMKroSBL(max_iterations=3)([A, B], y, 0.5)
    step = _gains([A, B], y, estimate, 0, unit_modulus=False)
    g = torch.kron(*estimate.hyperparameters)
    full = torch.kron(A, B)
    covariance = torch.linalg.inv(full.mH @ full / 0.5 + torch.diag(1 / g.clamp(min=1e-300)).to(full))
    mean = covariance @ full.mH @ y / 0.5
    d = step.clone().requires_grad_()
    weighted = d.repeat_interleave(3).unsqueeze(-1) * full
    misfit = (y - weighted @ mean).abs().square().sum()
    misfit = misfit + torch.einsum("mi,ij,mj->", weighted, covariance, weighted.conj()).real
    misfit.backward()
    assert d.grad.abs().max() < 1e-6 * (full @ mean).norm()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factor": 3}, "factor must be between 0 and 2"),
        ({"factor": 2, "rounds": 0}, "rounds must be at least 1"),
    ],
)
def test_what_cannot_be_is_named(options, message):
    y, _, s2, factors = uplinks(phase_errors(0), 20.0, count=1)
    with pytest.raises(ValueError, match=message):
        calibrate(AMKroSBL(), factors, y, s2, **options)


@pytest.mark.parametrize("unit_modulus", [True, False])
def test_an_element_that_receives_nothing_leaves_the_others_their_gains(unit_modulus):
    """Of modulus one every gain stays; free, the gain of a dead element is zero."""
    y, _, s2, factors = uplinks(phase_errors(5), 30.0)
    rows = [A.shape[0] for A in factors]
    y = y.unflatten(-1, rows).index_fill(-1, torch.tensor(3), 0).flatten(1)
    moduli = calibrate(AMKroSBL(), factors, y, s2, factor=ARRAY, unit_modulus=unit_modulus).gains.abs()
    expected = torch.full((16,), 1.0 if unit_modulus else math.sqrt(16 / 15), dtype=torch.float64)
    if not unit_modulus:
        expected[3] = 0
    torch.testing.assert_close(moduli, expected, rtol=0.05, atol=0.01)


def test_silence_teaches_nothing():
    y, _, s2, factors = uplinks(phase_errors(0), 20.0, count=2)
    for unit_modulus in (True, False):
        found = calibrate(AMKroSBL(), factors, 0 * y, s2, factor=ARRAY, unit_modulus=unit_modulus)
        torch.testing.assert_close(found.gains, torch.ones_like(found.gains))


def test_a_factor_of_each_problem_has_no_common_gains():
    y, _, s2, factors = uplinks(phase_errors(0), 20.0, count=2)
    with pytest.raises(ValueError, match=r"factors\[2\] must be shared"):
        calibrate(AMKroSBL(), [*factors[:2], factors[2].expand(2, -1, -1)], y, s2, factor=2)
