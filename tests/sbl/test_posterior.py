"""The separable posteriors against the dense formulas."""

from functools import reduce

import pytest
import torch
from mpmath import mp

from unfoldkit.sbl.em.kronecker_posterior import kronecker_posterior
from unfoldkit.sbl.em.state import State
from unfoldkit.sbl.em.unstructured_posterior import unstructured_posterior

SIZES = {
    "wide": ((3, 2, 4), (5, 4, 6)),
    "tall": ((5, 4, 6), (3, 2, 4)),
    "mixed": ((3, 5), (4, 2)),
    "one": ((4,), (6,)),
}


def random_state(rows, columns, dtype, unstructured=False, s2=0.3):
    generator = torch.Generator().manual_seed(1)
    factors = tuple(
        torch.randn(1, m, n, generator=generator, dtype=dtype) for m, n in zip(rows, columns, strict=True)
    )
    y = torch.randn(2, torch.Size(rows).numel(), generator=generator, dtype=dtype)
    lengths = [torch.Size(columns).numel()] if unstructured else columns
    g = tuple(torch.rand(2, n, generator=generator, dtype=torch.float64) + 0.1 for n in lengths)
    index = tuple(torch.arange(n).expand(2, n) for n in lengths)
    return State(factors, y, torch.full((2,), s2, dtype=torch.float64), g, index)


def dense(state, member):
    A = reduce(torch.kron, [factor[0].contiguous() for factor in state.factors])
    g = reduce(torch.kron, [v[member].contiguous() for v in state.g]).to(A.dtype)
    return A, g, A * g @ A.mH + state.noise_variance[member] * torch.eye(A.shape[0], dtype=A.dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("unstructured", [False, True])
def test_posterior_is_the_dense_one(sizes, dtype, unstructured):
    state = random_state(*sizes, dtype, unstructured)
    posterior = unstructured_posterior(state) if unstructured else kronecker_posterior(state)
    for member in range(2):
        A, g, K = dense(state, member)
        y, s2 = state.y[member], state.noise_variance[member]
        mean = g * (A.mH @ torch.linalg.solve(K, y))
        variance = (g - g**2 * (A.conj() * torch.linalg.solve(K, A)).sum(0)).real
        cost = torch.linalg.slogdet(K).logabsdet + (y.conj() @ torch.linalg.solve(K, y)).real
        torch.testing.assert_close(posterior.mean()[member], mean)
        torch.testing.assert_close(posterior.variance()[member], variance)
        torch.testing.assert_close(posterior.cost()[member], cost)
        torch.testing.assert_close(posterior.residual()[member], (y - A @ mean).abs().square().sum())
        freedom = (1 - variance / g.real).sum()
        torch.testing.assert_close(posterior.degrees_of_freedom()[member], freedom)
        assert s2 > 0


def in_many_digits(state, member):
    """y, s2, A, g and K = s2 I + A diag(g) A^T of a real problem, within a context of that many digits."""
    y, s2 = mp.matrix(state.y[member].tolist()), mp.mpf(state.noise_variance[member].item())
    A = reduce(_kron, [mp.matrix(factor[0].tolist()) for factor in state.factors])
    g = reduce(_kron, [mp.matrix(v[member].tolist()) for v in state.g])
    K = mp.eye(len(y)) * s2
    for n, variance in enumerate(g):
        K += variance * A[:, n] * A[:, n].T
    return y, s2, A, g, K


def test_the_residual_is_exact_where_little_is_left():
    """||y - A mean||^2 = s2^2 |K^-1 y|^2, in 40 digits: too little of y to be a difference."""
    state = random_state(*SIZES["wide"], torch.float64, s2=1e-8)
    posterior = kronecker_posterior(state)
    for member in range(2):
        with mp.workdps(40):
            y, s2, _, _, K = in_many_digits(state, member)
            solved = mp.lu_solve(K, y)
            expected = s2**2 * mp.fdot(solved, solved)
        assert expected < 1e-13 * mp.fdot(y, y)
        found = posterior.residual()[member].item()
        assert found == pytest.approx(float(expected), rel=1e-9, abs=0)


def test_the_variance_is_exact_where_rows_of_a_factor_almost_depend_on_each_other():
    """g - g^2 a^T K^-1 a, in 40 digits: of as many kept columns as rows the eigenvectors have all of g, and the
    smallest eigenvalue is 1e-11 of the largest, whose root rounding is 1e-10 of."""
    state = random_state((4, 2), (6, 3), torch.float64)
    A = state.factors[0]
    A[:, 3] = A[:, 0] - A[:, 1] + 1e-5 * A[:, 3]
    state.g[0][:, 4:] = 0
    variance = kronecker_posterior(state).variance()
    for member in range(2):
        with mp.workdps(40):
            _, _, B, g, K = in_many_digits(state, member)
            solved = mp.lu_solve(K, B[:, 0]), mp.lu_solve(K, B[:, 7])
            expected = [
                float(g[n] - g[n] ** 2 * mp.fdot(B[:, n], x)) for n, x in zip((0, 7), solved, strict=True)
            ]
        assert variance[member, [0, 7]].tolist() == pytest.approx(expected, rel=2e-9, abs=0)


def _kron(A, B):
    rows, columns = B.rows, B.cols
    return mp.matrix(
        [
            [A[i // rows, j // columns] * B[i % rows, j % columns] for j in range(A.cols * columns)]
            for i in range(A.rows * rows)
        ]
    )


@pytest.mark.parametrize("sizes", [SIZES["wide"], SIZES["tall"]], ids=["wide", "tall"])
def test_noiseless_limit_is_the_pseudo_inverse(sizes):
    state = random_state(*sizes, torch.complex128, s2=0.0)
    posterior = kronecker_posterior(state)
    A, g, _ = dense(state, 0)
    root = g.sqrt()
    expected = root * (torch.linalg.pinv(A * root) @ state.y[0])
    torch.testing.assert_close(posterior.mean()[0], expected)
