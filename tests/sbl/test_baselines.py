"""Every baseline against an independent computation on ten random problems."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import math
import warnings

import numpy as np
import pytest
import torch

from unfoldkit.kernels import kron_matvec
from unfoldkit.sbl import (
    EMVAMP,
    LASSO,
    LMMSE,
    GenieMMSE,
    LeastSquares,
    OracleLS,
    genie_bound,
)
from unfoldkit.sbl.baselines.lmmse import covariance_root, sample_root
from unfoldkit.sbl.estimate import Ended

KINDS = [torch.float64, torch.complex128]
CASES = range(10)


def posed(draw, dtype, seed):
    factors, x, y, s2 = draw(dtype=dtype, seed=seed)
    return factors, torch.kron(*factors).numpy(), x, y, float(s2)


def gaussian(A, C, y, s2):
    """Mean and variances of x ~ N(0, C) given y = A x + noise, as the textbook has them."""
    K = A @ C @ A.conj().T + s2 * np.eye(len(A))
    gain = C @ A.conj().T @ np.linalg.inv(K)
    return gain @ y, np.diag(C - gain @ A @ C).real


def agrees(estimate, mean, variance=None, tolerance=1e-9):
    found = estimate.mean.flatten().numpy()
    assert np.linalg.norm(found - mean) <= tolerance * np.linalg.norm(mean)
    if variance is not None:
        np.testing.assert_allclose(
            estimate.variance.flatten().numpy(), variance, atol=tolerance * variance.max()
        )


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("seed", CASES)
def test_least_squares_is_that_of_numpy(draw, dtype, seed):
    factors, A, _, y, s2 = posed(draw, dtype, seed)
    agrees(LeastSquares()(factors, y, s2), np.linalg.lstsq(A, y.numpy(), rcond=None)[0])


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("seed", CASES)
def test_oracle_least_squares_is_that_of_numpy_on_the_support(draw, dtype, seed):
    factors, A, x, y, s2 = posed(draw, dtype, seed)
    support = [(x != 0).any(-1), (x != 0).any(-2)]
    on = torch.kron(*support).numpy()
    expected = np.zeros(len(on), dtype=A.dtype)
    expected[on] = np.linalg.lstsq(A[:, on], y.numpy(), rcond=None)[0]
    agrees(OracleLS(support)(factors, y, s2), expected)


def test_least_squares_estimates_the_noise_from_what_is_left(draw):
    factors, _, y, s2 = draw(rows=(12, 15), columns=(4, 5), batch=(200,))
    found = LeastSquares()(factors, y).noise_variance
    assert (found / s2).mean() == pytest.approx(1, abs=4 * math.sqrt(2 / 160 / 200))


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("seed", CASES)
def test_lmmse_is_the_dense_formula_with_true_and_sample_covariances(draw, dtype, seed):
    factors, A, x, y, s2 = posed(draw, dtype, seed)
    generator = torch.Generator().manual_seed(seed)
    roots = [torch.randn(n, n, generator=generator, dtype=dtype) for n in x.shape]
    C = [L @ L.mH for L in roots]
    true = LMMSE([covariance_root(part) for part in C])(factors, y, s2)
    agrees(true, *gaussian(A, torch.kron(*C).numpy(), y.numpy(), s2))
    samples = torch.randn(20, *x.shape, generator=generator, dtype=dtype)
    flat = samples.flatten(1).numpy()
    sample = LMMSE([sample_root(samples)])(factors, y, s2)
    agrees(sample, *gaussian(A, sum(np.outer(s, s.conj()) for s in flat) / 20, y.numpy(), s2))


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("seed", CASES)
def test_the_genie_is_the_dense_formula(draw, dtype, seed):
    factors, A, x, y, s2 = posed(draw, dtype, seed)
    g = (x != 0) * torch.rand(x.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    agrees(GenieMMSE(g)(factors, y, s2), *gaussian(A, np.diag(g.flatten().numpy()), y.numpy(), s2))
    bound = genie_bound(factors, g, torch.tensor(s2, dtype=torch.float64))
    on = g.flatten().numpy() > 0
    fisher = A[:, on].conj().T @ A[:, on] / s2 + np.diag(1 / g.flatten().numpy()[on])
    assert float(bound) == pytest.approx(np.trace(np.linalg.inv(fisher)).real, rel=1e-9)


def test_an_unknown_noise_variance_is_the_likeliest(draw):
    factors, x, y, _ = draw()
    A, g = torch.kron(*factors), torch.ones_like(x)
    found = float(GenieMMSE(g)(factors, y).noise_variance)

    def cost(noise):
        K = A @ A.mT + noise * torch.eye(len(A))
        return float(torch.logdet(K) + y @ torch.linalg.solve(K, y))

    assert cost(found) <= min(cost(found * 1.02), cost(found / 1.02))


@pytest.mark.parametrize("snr_db", [10.0, 20.0, 40.0])
@pytest.mark.parametrize("columns", [(4, 5), (9, 8)])
def test_no_other_noise_variance_is_likelier(draw, snr_db, columns):
    """With fewer unknowns than measurements, and with more, where it may fit everything without noise."""
    factors, x, y, _ = draw(columns=columns, batch=(50,), snr_db=snr_db)
    found = GenieMMSE(torch.ones_like(x))(factors, y).noise_variance
    A = kron_matvec([F.unsqueeze(-3) for F in factors], torch.eye(math.prod(columns)).double()).mT
    values, vectors = torch.linalg.eigh(A @ A.mT)
    energy = (vectors.mT @ y.unsqueeze(-1)).squeeze(-1).square()

    def cost(noise):
        total = values.clamp(min=0) + noise.unsqueeze(-1)
        return (total.log() + energy / total).sum(-1)

    grid = torch.linspace(-30, 10, 2000, dtype=torch.float64).exp()
    least = torch.stack([cost(noise.expand(50)) for noise in grid]).amin(0)
    assert (cost(found) <= least + 1e-6).all()


def test_what_explains_nothing_is_not_said_to_explain_everything():
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(m, 2, generator=generator).double() for m in (6, 5)]
    y = torch.randn(30, generator=generator).double()
    for method in (LeastSquares(), LMMSE([torch.eye(2)] * 2), EMVAMP()):
        assert float(method(factors, y, 0.0).residual_to_noise) > 1e12


def test_complex_roots_are_refused_where_y_is_real(draw):
    factors, _, y, s2 = draw()
    with pytest.raises(ValueError, match=r"roots\[0\] must be real"):
        LMMSE([1j * torch.eye(7), torch.eye(8)])(factors, y, s2)


def test_lasso_says_whether_it_settled(draw):
    """With its noise known it finds the same noise again; without any noise celer does not come to its end."""
    pytest.importorskip("celer")
    factors, _, y, _ = draw(columns=(8, 9), batch=(20,), snr_db=25.0)
    found = LASSO()(factors, y)
    assert (found.ended == Ended.SETTLED).all()
    again = LASSO()(factors, y, found.noise_variance)
    torch.testing.assert_close(again.residual_to_noise, torch.ones(20).double(), rtol=0.05, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unsettled = LASSO()(factors, y, 0.0)
    assert (unsettled.ended == Ended.ITERATIONS).any()
    assert not unsettled.converged.all()


def lasso_loop(A, y, t):
    """Coordinate descent, one entry after the other, written out."""
    x, norms = np.zeros(A.shape[1], A.dtype), np.linalg.norm(A, axis=0)
    residual = y.copy()
    for _ in range(3000):
        before = x.copy()
        for n in range(len(x)):
            a = A[:, n]
            pull = a.conj() @ residual + norms[n] ** 2 * x[n]
            new = pull * max(0.0, 1 - t * norms[n] / max(abs(pull), 1e-300)) / norms[n] ** 2
            residual += a * (x[n] - new)
            x[n] = new
        if np.linalg.norm(x - before) <= 1e-12 * np.linalg.norm(x):
            break
    return x


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("seed", CASES)
def test_lasso_is_coordinate_descent_written_out(draw, dtype, seed):
    pytest.importorskip("celer")
    factors, A, _, y, s2 = posed(draw, dtype, seed)
    real = 1 if dtype.is_complex else 2
    expected = lasso_loop(A, y.numpy(), math.sqrt(real * s2 * math.log(A.shape[1])))
    agrees(LASSO(tolerance=1e-12)(factors, y, s2), expected, tolerance=1e-4)


@pytest.mark.parametrize("seed", CASES)
def test_lasso_is_that_of_scikit_learn(draw, seed):
    pytest.importorskip("celer")
    linear_model = pytest.importorskip("sklearn.linear_model")
    factors, A, _, y, s2 = posed(draw, torch.float64, seed)
    norms = np.linalg.norm(A, axis=0)
    t = math.sqrt(2 * s2 * math.log(len(norms)))
    model = linear_model.Lasso(alpha=t / len(y), fit_intercept=False, tol=1e-12, max_iter=100_000)
    expected = model.fit(A / norms, y.numpy()).coef_ / norms
    agrees(LASSO(tolerance=1e-12)(factors, y, s2), expected, tolerance=1e-4)


def test_lasso_without_its_library_names_the_extra(draw, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "celer", None)
    factors, _, y, s2 = draw()
    with pytest.raises(ValueError, match=r"unfoldkit\[baselines\]"):
        LASSO()(factors, y, s2)


def vamp_loop(A, y, s2, iterations, damping):
    """The recursion with matrices inverted and entries one after the other, in the unit of y's power."""
    M, N = A.shape
    amplitude = np.linalg.norm(y) / math.sqrt(M)
    power = M / np.linalg.norm(A) ** 2
    y, A, s2 = y / amplitude, A * math.sqrt(power), s2 / amplitude**2
    beta = 1 if np.iscomplexobj(A) else 0.5
    r, g, share = np.zeros(N, A.dtype), 1.0, min(0.5, 0.1 * M / N)
    p = 1 / share
    for _ in range(iterations):
        covariance = np.linalg.inv(A.conj().T @ A / s2 + g * np.eye(N))
        x = covariance @ (A.conj().T @ y / s2 + g * r)
        e = N / np.trace(covariance).real
        g1 = e - g
        r1 = (e * x - g * r) / g1
        mean, variance, pis, seconds = np.zeros_like(x), np.zeros(N), np.zeros(N), np.zeros(N)
        for n in range(N):
            on = share * (g1 / (1 + g1 * p)) ** beta * math.exp(-beta * abs(r1[n]) ** 2 * g1 / (1 + g1 * p))
            off = (1 - share) * g1**beta * math.exp(-beta * abs(r1[n]) ** 2 * g1)
            pis[n] = on / (on + off)
            within, spread = r1[n] * p * g1 / (1 + p * g1), p / (1 + p * g1)
            seconds[n] = abs(within) ** 2 + spread
            mean[n] = pis[n] * within
            variance[n] = pis[n] * seconds[n] - abs(mean[n]) ** 2
        e1 = 1 / variance.mean()
        g = g * ((e1 - g1) / g) ** damping
        r = r + damping * (mean + g1 / g * (mean - r1) - r)
        share, p = pis.mean(), (pis * seconds).sum() / pis.sum()
    return mean * amplitude * math.sqrt(power), variance * amplitude**2 * power


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("seed", CASES)
def test_vamp_is_its_recursion_written_out(draw, dtype, seed):
    factors, _, y, s2 = draw(rows=(30,), columns=(60,), sparsity=3, dtype=dtype, seed=seed)
    method = EMVAMP(max_iterations=5, tolerance=0.0)
    agrees(method(factors, y, s2), *vamp_loop(factors[0].numpy(), y.numpy(), float(s2), 5, method.damping))


@pytest.mark.parametrize("dtype", KINDS)
def test_vamp_finds_sparse_vectors_behind_matrices_without_structure(draw, dtype):
    factors, x, y, s2 = draw(rows=(100,), columns=(200,), batch=(10,), sparsity=8, dtype=dtype)
    genie = GenieMMSE((x != 0).double())(factors, y, s2)
    for noise in (s2, None):
        found = EMVAMP()(factors, y, noise)
        assert (found.ended == Ended.SETTLED).all()
        assert (found.mean - x).abs().square().sum() < 2 * (genie.mean - x).abs().square().sum()


METHODS = {
    "LS": lambda shape: LeastSquares(),
    "LMMSE": lambda shape: LMMSE([torch.eye(n) for n in shape]),
    "sLMMSE": lambda shape: LMMSE([torch.eye(math.prod(shape))[:, :9]]),
    "genie": lambda shape: GenieMMSE(torch.ones(shape)),
    "VAMP": lambda shape: EMVAMP(max_iterations=20),
    "LASSO": lambda shape: LASSO(),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_they_are_drop_in_estimators(draw, name, dtype):
    if name == "LASSO":
        pytest.importorskip("celer")
    factors, _, y, s2 = draw(batch=(2, 3), dtype=dtype)
    method = METHODS[name]((7, 8))
    for noise in (s2, None):
        found = method(factors, y, noise)
        assert found.mean.shape == found.variance.shape == (2, 3, 7, 8)
        assert (found.mean.dtype, found.variance.dtype) == (dtype, dtype.to_real())
        assert found.noise_variance.shape == found.ended.shape == found.residual_to_noise.shape == (2, 3)
        one = method([A[1, 2] for A in factors], y[1, 2], None if noise is None else noise[1, 2])
        scale = one.mean.abs().max()
        assert (found.mean[1, 2] - one.mean).abs().max() <= 10 * torch.finfo(dtype).eps ** 0.75 * scale


@pytest.mark.parametrize("name", METHODS)
def test_empty_batches_zero_factors_and_tracked_arguments(draw, name):
    if name == "LASSO":
        pytest.importorskip("celer")
    method = METHODS[name]((7, 8))
    factors, _, y, s2 = draw(batch=(3,))
    for noise in (s2, None):
        empty = method([A[:0] for A in factors], y[:0], None if noise is None else noise[:0])
        assert empty.mean.shape == (0, 7, 8)
        dark = [factors[0].index_fill(0, torch.tensor(1), 0.0), factors[1]]
        found = method(dark, y, noise)
        assert found.mean.isfinite().all()
        assert found.residual_to_noise.isfinite().all()
        assert found.mean[1].count_nonzero() == 0
        tracked = method([A.requires_grad_() for A in factors], y.clone().requires_grad_(), noise)
        assert tracked.mean.shape == (3, 7, 8)
        factors = [A.detach() for A in factors]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (GenieMMSE(torch.ones(3, 8)), "variances must be real"),
        (GenieMMSE(-torch.ones(7, 8)), "variances must be finite and not negative"),
        (GenieMMSE(torch.ones(5, 7, 8)), "do not broadcast to the batch"),
        (LMMSE([torch.eye(7)]), r"roots must have \[7, 8\] rows, or one root 56"),
        (LMMSE([torch.eye(7), torch.full((8, 8), math.nan)]), r"roots\[1\] has NaN"),
        (LMMSE([torch.ones(5, 7, 7), torch.eye(8)]), r"roots\[0\] of shape .* does not broadcast"),
    ],
)
def test_what_does_not_fit_is_named(draw, method, message):
    factors, _, y, s2 = draw(batch=(2,))
    with pytest.raises(ValueError, match=message):
        method(factors, y, s2)
