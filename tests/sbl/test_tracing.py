"""An estimate, iteration by iteration."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from unfoldkit.sbl import KSBL, OMP, PCSBL, AMKroSBL, ClassicSBL, PCKroSBL, SVDKroSBL
from unfoldkit.sbl.em.tracing import trace

ESTIMATORS = (SVDKroSBL(), AMKroSBL(), KSBL(), PCKroSBL(0.8), ClassicSBL(), PCSBL())


@pytest.mark.parametrize("noise_known", [True, False])
@pytest.mark.parametrize("method", ESTIMATORS, ids=lambda method: type(method).__name__)
def test_each_iteration_is_the_estimate_of_one_that_stops_there(draw, method, noise_known):
    estimator = replace(method, max_iterations=30)
    factors, _, y, s2 = draw()
    s2 = s2 if noise_known else None
    kept = trace(estimator, factors, y, s2)
    assert len(kept.cost) == int(estimator(factors, y, s2).iterations)
    for k in {1, 2, len(kept.cost)}:
        stopped = replace(estimator, max_iterations=k)(factors, y, s2)
        assert_close(kept.mean[k - 1], stopped.mean, rtol=1e-6, atol=1e-9)
        assert_close(kept.noise_variance[k - 1], stopped.noise_variance)
        for path, g in zip(kept.hyperparameters, stopped.hyperparameters, strict=True):
            assert_close(path[k - 1], g)


@pytest.mark.parametrize("method", ESTIMATORS, ids=lambda method: type(method).__name__)
def test_the_means_are_right_at_any_scale(draw, method):
    factors, _, y, s2 = draw(dtype=torch.float32)
    kept, estimate = (
        solve(factors, y * 1e-10, s2 * 1e-20) for solve in (lambda *x: trace(method, *x), method)
    )
    assert_close(kept.mean[-1] * 1e10, estimate.mean * 1e10, rtol=1e-3, atol=1e-5)


def test_paths_of_a_batch_are_those_of_its_members(draw, kronecker):
    factors, _, y, s2 = draw(batch=(3,))
    together = kronecker(factors, y, s2, history=True)
    for i in range(3):
        alone = kronecker([A[i] for A in factors], y[i], s2[i], history=True)
        assert_close(together.noise_variance_path[i], alone.noise_variance_path, equal_nan=True)
        for one, other in zip(together.hyperparameter_path, alone.hyperparameter_path, strict=True):
            assert_close(one[i], other, rtol=1e-6, atol=1e-9, equal_nan=True)
    assert kronecker(factors, y, s2).hyperparameter_path is None


def test_what_cannot_be_traced_is_refused(draw, kronecker):
    factors, _, y, s2 = draw(batch=(2,))
    with pytest.raises(ValueError, match="one problem"):
        trace(kronecker, factors, y, s2)
    with pytest.raises(ValueError, match="one that iterates, got OMP"):
        trace(OMP(), [A[0] for A in factors], y[0], 0.1)


def test_a_trace_of_complex_data_is_real_where_it_must_be(draw, kronecker):
    factors, x, y, s2 = draw(dtype=torch.complex128)
    kept = trace(kronecker, factors, y, s2.real)
    assert kept.mean.shape[1:] == x.shape
    assert kept.mean.is_complex()
    assert not any(g.is_complex() for g in kept.hyperparameters)
