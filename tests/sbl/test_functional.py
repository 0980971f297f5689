"""Linear functionals of x against the dense posterior, and starts at a given prior."""

from functools import reduce

import pytest
import torch

from unfoldkit.sbl import AMKroSBL, ClassicSBL, PCKroSBL, SVDKroSBL, UnfoldedKroSBL
from unfoldkit.sbl.em import compiled

ESTIMATORS = {
    "am": AMKroSBL(max_iterations=6),
    "pruned": SVDKroSBL(max_iterations=6, pruning=0.2),
    "published": AMKroSBL(max_iterations=6, as_published=True),
    "unfolded": UnfoldedKroSBL(iterations=3, factors=2),
}


def dense_posterior(factors, y, prior, s2):
    """Mean and covariance of x of one problem, from the prior variances of its factors."""
    A = reduce(torch.kron, factors)
    g = reduce(torch.kron, prior)
    K = (A * g) @ A.mH + s2 * torch.eye(len(A), dtype=A.dtype)
    gain = g.unsqueeze(-1) * A.mH @ torch.linalg.inv(K)
    return gain @ y, torch.diag(g).to(A.dtype) - gain @ (A * g)


@pytest.mark.parametrize("name", ["am", "pruned", "published"])
@pytest.mark.parametrize("sizes", [((5, 6), (7, 8)), ((7, 8), (5, 6)), ((5, 8), (7, 6))])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_mean_and_variance_are_those_of_the_dense_posterior(draw, name, sizes, dtype):
    factors, _, y, s2 = draw(*sizes, batch=(2,), dtype=dtype)
    estimate = ESTIMATORS[name](factors, y, s2)
    generator = torch.Generator().manual_seed(3)
    B = [
        torch.randn(n, A.shape[-1], generator=generator, dtype=dtype)
        for n, A in zip((3, 4), factors, strict=True)
    ]
    found = estimate.functional(B)
    assert found.mean.shape == found.variance.shape == (2, 3, 4)
    for member in range(2):
        prior = [g[member] for g in estimate.hyperparameters]
        mean, covariance = dense_posterior([A[member] for A in factors], y[member], prior, s2[member])
        whole = torch.kron(*B)
        torch.testing.assert_close(found.mean[member].flatten(), whole @ mean, rtol=1e-9, atol=1e-9)
        variance = (whole @ covariance @ whole.mH).diagonal().real
        torch.testing.assert_close(found.variance[member].flatten(), variance, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_identity_gives_mean_and_variance(draw, name):
    factors, _, y, s2 = draw(batch=(3,), dtype=torch.complex128)
    estimate = ESTIMATORS[name](factors, y, s2)
    found = estimate.functional([torch.eye(A.shape[-1]) for A in factors])
    torch.testing.assert_close(found.mean, estimate.mean)
    torch.testing.assert_close(found.variance, estimate.variance)


def test_functionals_of_a_batch_may_differ(draw):
    factors, _, y, s2 = draw(batch=(2, 3))
    estimate = AMKroSBL(max_iterations=4)(factors, y, s2)
    B = [torch.randn(3, 2, A.shape[-1], dtype=torch.float64) for A in factors]
    found = estimate.functional(B)
    alone = estimate.functional([b[1] for b in B])
    torch.testing.assert_close(found.mean[:, 1], alone.mean[:, 1])
    torch.testing.assert_close(found.variance[:, 1], alone.variance[:, 1])


def test_wrong_functionals_are_refused(draw):
    factors, _, y, s2 = draw()
    estimate = AMKroSBL(max_iterations=2)(factors, y, s2)
    with pytest.raises(ValueError, match="B must hold 2 matrices"):
        estimate.functional([torch.eye(7)])
    with pytest.raises(ValueError, match=r"B\[1\] must be \(..., R, 8\)"):
        estimate.functional([torch.eye(7), torch.eye(7)])
    with pytest.raises(ValueError, match=r"B\[0\] is complex"):
        estimate.functional([torch.eye(7, dtype=torch.complex128), torch.eye(8)])
    with pytest.raises(ValueError, match=r"batch shape \(5,\) of B\[0\]"):
        estimate.functional([torch.ones(5, 2, 7), torch.eye(8)])
    with pytest.raises(ValueError, match="Kronecker structure"):
        ClassicSBL(max_iterations=2)(factors, y, s2).functional([torch.eye(7), torch.eye(8)])


@pytest.mark.parametrize("estimator", [AMKroSBL, SVDKroSBL])
@pytest.mark.parametrize("as_published", [False, True])
def test_a_run_goes_on_from_its_own_prior(engine, draw, estimator, as_published):
    factors, _, y, s2 = draw(batch=(2,), dtype=torch.complex128)
    steps = {"pruning": 0.0, "as_published": as_published, "tolerance": 1e-14}
    whole = estimator(max_iterations=6, **steps)(factors, y, s2)
    half = estimator(max_iterations=3, **steps)
    again = half(factors, y, s2, prior=half(factors, y, s2).hyperparameters)
    torch.testing.assert_close(again.mean, whole.mean, rtol=1e-8, atol=1e-10)


def test_unstructured_and_coupled_priors_start_there_too(draw):
    factors, _, y, s2 = draw()
    found = ClassicSBL(max_iterations=2)(factors, y, s2, prior=[torch.arange(56.0)])
    assert found.hyperparameters[0][0] == 0
    assert (found.hyperparameters[0][1:] > 0).all()
    zero = PCKroSBL(max_iterations=1, pruning=0.0, floor=0.0)
    prior = [torch.ones(7), torch.tensor([1.0, 0, 0, 1, 1, 1, 1, 1])]
    assert (zero(factors, y, s2, prior=prior).hyperparameters[1][1:3] == 0).all()


def test_zeros_of_the_prior_stay_zero(engine, draw):
    factors, _, y, s2 = draw()
    prior = [torch.ones(7), torch.tensor([1.0, 0, 1, 1, 0, 1, 1, 1])]
    found = AMKroSBL(max_iterations=5)(factors, y, s2, prior=prior)
    assert (found.mean[:, [1, 4]] == 0).all()
    assert found.mean.abs().sum() > 0


def test_wrong_priors_are_refused(draw):
    factors, _, y, s2 = draw()
    for prior, message in (
        ([torch.ones(7)], "prior must hold 2 vectors"),
        ([torch.ones(7), torch.ones(7)], r"prior\[1\] must be real of shape \(..., 8\)"),
        ([-torch.ones(7), torch.ones(8)], r"prior\[0\] must not be negative"),
        ([torch.full((7,), torch.nan), torch.ones(8)], r"prior\[0\] has NaN"),
        ([torch.ones(3, 7), torch.ones(8)], r"batch shape \(3,\) of prior\[0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            AMKroSBL()(factors, y, s2, prior=prior)


@pytest.mark.parametrize("order", [97, 160, 272])
def test_large_factors_have_the_compiled_loop(draw, order):
    """Beyond a hundred rows, at sizes at and off whole vectors, both engines give the same."""
    factors, _, y, s2 = draw((2, order), (2, order + 20), dtype=torch.complex128)
    estimator = AMKroSBL(max_iterations=3)
    found = estimator(factors, y, s2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "serves", lambda problem, step: False)
        expected = estimator(factors, y, s2)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-8, atol=1e-9)
