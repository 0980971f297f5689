"""Non-negative least squares against SciPy's active-set solver."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from unfoldkit.kernels import nonnegative_least_squares


@settings(max_examples=40)
@given(
    n=st.integers(1, 18),
    seed=st.integers(0, 10_000),
    beta=st.sampled_from([0.3, 0.45, 0.8]),
    dense=st.booleans(),
)
def test_agrees_with_scipy(n, seed, beta, dense):
    generator = np.random.default_rng(seed)
    tridiagonal = np.eye(n) + beta * (np.eye(n, k=1) + np.eye(n, k=-1))
    C = (
        generator.standard_normal((4, n, n)) + 3 * np.eye(n)
        if dense
        else np.broadcast_to(tridiagonal, (4, n, n))
    )
    b = generator.standard_normal((4, n))
    guess = torch.from_numpy(generator.random((4, n)) < 0.5)
    found = nonnegative_least_squares(torch.tensor(C), torch.from_numpy(b), guess)
    expected = np.stack([nnls(matrix, right)[0] for matrix, right in zip(C, b, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


def of_condition(generator, decades, n=10):
    left, right = (np.linalg.qr(generator.standard_normal((n, n)))[0] for _ in range(2))
    return left * np.logspace(0, -decades, n) @ right


def hilbert(n):
    index = np.arange(n)
    return 1 / (index[:, None] + index + 1)


def repeated_column(generator):
    C = generator.standard_normal((6, 5))
    return np.concatenate([C, C[:, :1]], axis=1)


# Matrices, how many of them, and by how much of |b| the residual may exceed that of SciPy: at condition 1e12 the
# solution's entries reach 1e8 and more, and C g is known to their last digit.
HARD = {
    "condition 1e8": (lambda g, k: of_condition(g, 8), 100, 1e-9),
    "condition 1e12": (lambda g, k: of_condition(g, 12), 100, 1e-7),
    "Hilbert": (lambda g, k: hilbert(2 + k % 8), 80, 1e-9),
    "rows": (lambda g, k: g.standard_normal((8, 8)) * 10.0 ** g.uniform(-6, 6, (8, 1)), 100, 1e-9),
    "columns": (lambda g, k: g.random((5, 5)) * 10.0 ** g.uniform(-9, 9, 5), 50, 1e-9),
    "rows and columns": (
        lambda g, k: (
            g.standard_normal((7, 7)) * 10.0 ** g.uniform(-6, 6, (7, 1)) * 10.0 ** g.uniform(-6, 6, 7)
        ),
        50,
        1e-9,
    ),
    "a column twice": (lambda g, k: repeated_column(g), 50, 1e-9),
    "a column of zeros": (lambda g, k: g.standard_normal((5, 5)) * (np.arange(5) != k % 5), 20, 1e-9),
    "zeros": (lambda g, k: np.zeros((4, 4)), 1, 1e-9),
    "ones": (lambda g, k: np.ones((4, 4)), 1, 1e-9),
}


@pytest.mark.parametrize("kind", HARD)
def test_residual_of_hard_matrices_is_that_of_scipy(kind):
    matrix, count, excess = HARD[kind]
    generator = np.random.default_rng(0)
    for k in range(count):
        C = matrix(generator, k)
        b = generator.standard_normal(len(C))
        found = nonnegative_least_squares(torch.tensor(C), torch.tensor(b)).numpy()
        expected = nnls(C, b, maxiter=10000)[0]
        assert (found >= 0).all()
        ours, theirs = (np.linalg.norm(C @ x - b) for x in (found, expected))
        assert ours <= theirs + excess * np.linalg.norm(b)


@pytest.mark.parametrize("exponent", [-300, -170, -21, 21, 160, 300])
def test_units_change_nothing_else(exponent):
    generator = np.random.default_rng(0)
    C, b = generator.standard_normal((20, 8, 8)), generator.standard_normal((20, 8))
    unit = 2.0 ** round(exponent / np.log10(2))
    expected = nonnegative_least_squares(torch.tensor(C), torch.tensor(b))
    assert torch.equal(nonnegative_least_squares(torch.tensor(C * unit), torch.tensor(b * unit)), expected)
    by_column = unit ** np.linspace(-1, 1, 8)
    scaled = nonnegative_least_squares(torch.tensor(C * by_column), torch.tensor(b))
    torch.testing.assert_close(scaled * torch.tensor(by_column), expected)


def test_hard_and_easy_problems_in_one_batch_are_as_alone():
    generator = np.random.default_rng(1)
    C = torch.tensor(np.stack([of_condition(generator, decades) for decades in (1, 13, 2, 12, 0)]))
    b = torch.tensor(generator.standard_normal((5, 10)))
    C[2, 0, 0] = torch.nan
    together = nonnegative_least_squares(C, b)
    assert together[2].isnan().all()
    for k in (0, 1, 3, 4):
        torch.testing.assert_close(together[k], nonnegative_least_squares(C[k], b[k]), rtol=1e-6, atol=1e-9)


def test_single_precision_of_a_graded_matrix():
    generator = np.random.default_rng(2)
    C = torch.tensor(
        generator.standard_normal((40, 8, 8)) * 10.0 ** generator.uniform(-4, 4, (40, 8, 1))
    ).float()
    b = torch.tensor(generator.standard_normal((40, 8))).float()
    found = nonnegative_least_squares(C, b)
    assert found.dtype == torch.float32
    for matrix, right, x in zip(C.double().numpy(), b.double().numpy(), found.double().numpy(), strict=True):
        best = nnls(matrix, right, maxiter=10000)[0]
        rounding = np.linalg.norm(np.abs(matrix) @ best) * 1e-6
        assert np.linalg.norm(matrix @ x - right) <= np.linalg.norm(matrix @ best - right) + rounding


@pytest.mark.parametrize("kind", ["condition 1e8", "rows", "a column twice", "a column of zeros"])
def test_gradient_of_a_hard_matrix_is_that_of_the_entries_in_use(kind):
    matrix, _, _ = HARD[kind]
    generator = np.random.default_rng(3)
    for k in range(5):
        C = torch.tensor(matrix(generator, k))
        b = torch.tensor(generator.standard_normal(len(C))).requires_grad_()
        x = nonnegative_least_squares(C, b)
        used = x.detach() > 0
        (grad,) = torch.autograd.grad(x.sum(), b)
        torch.testing.assert_close(grad, torch.linalg.pinv(C[:, used]).sum(0), rtol=1e-4, atol=1e-9)


def test_gradient_is_that_of_the_positive_part():
    C = torch.tensor(
        [[1.0, 0.3, 0.0], [0.3, 1.0, 0.3], [0.0, 0.3, 1.0]], dtype=torch.float64, requires_grad=True
    )
    b = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(nonnegative_least_squares, (C, b), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(nonnegative_least_squares, (C, b))


def test_vmap_is_the_batch():
    C = torch.eye(3, dtype=torch.float64) + 0.2
    b = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mapped = torch.func.vmap(lambda right: nonnegative_least_squares(C, right))(b)
    torch.testing.assert_close(mapped, nonnegative_least_squares(C, b))
    some = torch.stack([C, 2 * C, C.mT])
    mapped = torch.func.vmap(lambda matrix: nonnegative_least_squares(matrix, b))(some)
    torch.testing.assert_close(mapped, nonnegative_least_squares(some[:, None], b))
