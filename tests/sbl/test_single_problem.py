"""One small problem goes through NumPy; asked for its history it goes through PyTorch, with the same estimate."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import pytest
import torch

from sbl import SVDKroSBL, single_problem


@pytest.fixture
def solved(monkeypatch):
    """How many problems have gone through NumPy."""
    count = []
    solve = single_problem.solve

    def counted(*args):
        count.append(1)
        return solve(*args)

    monkeypatch.setattr(single_problem, "solve", counted)
    return count


def assert_equal(found, expected, tolerance):
    scale = {"rtol": tolerance, "atol": tolerance * float(expected.mean.abs().max())}
    torch.testing.assert_close(found.mean, expected.mean, **scale)
    torch.testing.assert_close(found.variance, expected.variance, **scale)
    torch.testing.assert_close(
        found.hyperparameters, expected.hyperparameters, rtol=tolerance, atol=tolerance
    )
    torch.testing.assert_close(found.noise_variance, expected.noise_variance, rtol=tolerance, atol=1e-30)
    assert found.converged == expected.converged


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-9), (torch.complex128, 1e-9), (torch.float32, 5e-3), (torch.complex64, 5e-3)],
)
@pytest.mark.parametrize(
    "sizes",
    [
        {"rows": (9,), "columns": (12,)},
        {},
        {"rows": (8, 3, 4), "columns": (5, 4, 6)},
        {"rows": (2, 3, 4, 1), "columns": (3, 3, 3, 1)},
    ],
    ids=["one factor", "two", "three", "four"],
)
@pytest.mark.parametrize("known_noise", [True, False])
@pytest.mark.parametrize(
    "settings",
    [{}, {"pruning": 0.0, "floor": 1e-4}, {"pruning": 1e-2, "scaled_start": True}],
    ids=["default", "floor", "scaled"],
)
def test_it_is_the_batched_estimate(draw, solved, dtype, tolerance, sizes, known_noise, settings):
    factors, _, y, s2 = draw(dtype=dtype, **sizes)
    method = SVDKroSBL(max_iterations=25, **settings)
    noise = s2 if known_noise else None
    expected = method(factors, y, noise, history=True)
    assert not solved
    found = method(factors, y, noise)
    assert solved
    assert_equal(found, expected, tolerance)
    assert abs(int(found.iterations) - int(expected.iterations)) <= (0 if tolerance < 1e-6 else 1)


@pytest.mark.parametrize("exponent", [-150, -90, 70])
def test_any_scale(draw, solved, exponent):
    factors, _, y, s2 = draw(columns=(4, 8))
    y, s2 = y * 10.0**exponent, torch.tensor(0.0, dtype=torch.float64)
    method = SVDKroSBL(scaled_start=True, max_iterations=10)
    expected = method(factors, y, s2, history=True)
    assert_equal(method(factors, y, s2), expected, 1e-6)
    assert solved


def test_what_else_goes_through_pytorch(draw, solved):
    factors, _, y, s2 = draw()
    SVDKroSBL()([A.requires_grad_() for A in factors], y, s2)
    SVDKroSBL(tolerance=None, max_iterations=3)(factors, y, s2)
    SVDKroSBL(max_iterations=3)([A.detach() for A in factors], y.expand(2, -1), s2)
    large = [torch.randn(3, 2**8, dtype=torch.float64)] * 2
    SVDKroSBL(max_iterations=2)(large, torch.randn(9, dtype=torch.float64), 0.1)

    class Extended(SVDKroSBL):
        """Its M-step may be another."""

    Extended(max_iterations=3)([A.detach() for A in factors], y, s2)
    assert not solved
