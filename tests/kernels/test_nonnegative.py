"""Non-negative least squares against SciPy's active-set solver."""

import numpy as np
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


def test_gradient_is_that_of_the_positive_part():
    C = torch.tensor(
        [[1.0, 0.3, 0.0], [0.3, 1.0, 0.3], [0.0, 0.3, 1.0]], dtype=torch.float64, requires_grad=True
    )
    b = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(nonnegative_least_squares, (C, b))


def test_vmap_is_the_batch():
    C = torch.eye(3, dtype=torch.float64) + 0.2
    b = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mapped = torch.func.vmap(lambda right: nonnegative_least_squares(C, right))(b)
    torch.testing.assert_close(mapped, nonnegative_least_squares(C, b))
