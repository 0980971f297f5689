"""Monarch, dictionary and low-rank-plus-sparse forms of a matrix, each with the error that it promises."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import pytest
import torch

from unfoldkit import kernels

REAL_AND_COMPLEX = pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def norm(matrix):
    return torch.linalg.matrix_norm(matrix)


def inputs(seed=5, samples=40, size=24):
    """Samples whose directions differ a hundredfold in size, and turn."""
    turned = torch.linalg.qr(draw(size, size, seed=seed)).Q
    return draw(samples, size, seed=seed + 1) * torch.logspace(0, -2, size).double() @ turned


# Monarch


@REAL_AND_COMPLEX
@pytest.mark.parametrize(("blocks", "rank"), [(1, 3), (2, 1), (4, 1), (2, 2)])
def test_a_monarch_matrix_is_recovered(blocks, rank, dtype):
    left, right = (
        draw(3, blocks, 12 // blocks, blocks * rank, dtype=dtype),
        draw(3, blocks, blocks * rank, 8 // blocks, dtype=dtype, seed=1),
    )
    matrix = kernels.Monarch(left, right).dense()
    found = kernels.monarch_project(matrix, blocks, rank)
    assert found.left.shape == left.shape
    assert found.right.shape == right.shape
    assert (norm(found.dense() - matrix) < 1e-6 * norm(matrix)).all()


@REAL_AND_COMPLEX
def test_the_product_of_a_monarch_matrix_is_that_of_its_dense_form(dtype):
    monarch = kernels.monarch_project(draw(2, 12, 8, dtype=dtype), blocks=4, rank=2)
    x = draw(2, 8, 5, dtype=dtype, seed=3)
    torch.testing.assert_close(monarch.product(x), monarch.dense() @ x)


def test_no_monarch_matrix_is_closer():
    """Against matrices all about the projection, near and far, and those that descent finds."""
    matrix = draw(6, 9)
    closest = kernels.monarch_project(matrix, 3)
    least = norm(closest.dense() - matrix)
    for trial in range(120):
        step = 10.0 ** -(trial % 6)
        left = closest.left + step * draw(*closest.left.shape, seed=2 * trial)
        right = closest.right + step * draw(*closest.right.shape, seed=2 * trial + 1)
        assert norm(kernels.Monarch(left, right).dense() - matrix) >= least
    factors = [draw(*factor.shape, seed=7).requires_grad_() for factor in closest]
    optimizer = torch.optim.LBFGS(factors, max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        error = norm(kernels.Monarch(*factors).dense() - matrix)
        error.backward()
        return error

    optimizer.step(loss)
    assert loss() >= least - 1e-9


@REAL_AND_COMPLEX
def test_the_gradient_of_the_monarch_projection(dtype):
    matrix = draw(2, 4, 6, dtype=dtype).requires_grad_()
    assert torch.autograd.gradcheck(lambda A: kernels.monarch_project(A, 2).dense(), matrix)


def test_the_gradient_of_the_projection_is_finite_at_zero():
    matrix = torch.zeros(4, 6, dtype=torch.float64, requires_grad=True)
    left, right = kernels.monarch_project(matrix, 2)
    (gradient,) = torch.autograd.grad(left.sum() + right.sum(), matrix)
    assert gradient.isfinite().all()


# truncated SVD


def test_one_block_is_the_truncated_svd():
    matrix = draw(3, 7, 5)
    left, right = kernels.truncated_svd(matrix, 2)
    torch.testing.assert_close(kernels.monarch_project(matrix, 1, 2).dense(), left @ right)


def test_the_weighted_svd_reaches_the_least_output_error():
    X, W = inputs(), draw(24, 16)
    left, right = kernels.truncated_svd(W, 4, X.mT @ X)
    least = kernels.svdvals(X @ W)[4:].square().sum().sqrt()
    torch.testing.assert_close(norm(X @ (W - left @ right)), least, rtol=1e-5, atol=0)
    left, right = kernels.truncated_svd(W, 4)
    assert norm(X @ (W - left @ right)) > 1.2 * least


@REAL_AND_COMPLEX
def test_errors_count_as_both_gram_matrices_weigh_them(dtype):
    """As close as the tail of the weighed matrix's spectrum, which no matrix of that rank is below."""
    X, Y, W = draw(40, 24, dtype=dtype), draw(16, 30, dtype=dtype, seed=1), draw(24, 16, dtype=dtype, seed=2)
    G, H = X.mH @ X, Y @ Y.mH
    left, right = kernels.truncated_svd(W, 4, G, H)
    least = norm(torch.linalg.svdvals(X @ W @ Y)[None, 4:])
    torch.testing.assert_close(norm(X @ (W - left @ right) @ Y), least, rtol=1e-6, atol=0)
    for known in ((), (G,), (None, H)):
        left, right = kernels.truncated_svd(W, 4, *known)
        assert norm(X @ (W - left @ right) @ Y) > 1.02 * least


def test_inputs_that_never_occurred_leave_the_weights_finite():
    X, W = inputs(samples=10), draw(24, 16)
    left, right = kernels.truncated_svd(W, 12, X.mT @ X)
    assert norm(X @ (W - left @ right)) < 1e-5 * norm(X @ W)
    assert norm(left @ right) < 2 * norm(W)


# dictionary


@pytest.mark.parametrize(("atoms", "sparsity"), [(8, 2), (12, 6), (24, 1), (30, 3), (6, 6)])
@pytest.mark.parametrize("kind", ["clusters", "noise"])
def test_outputs_are_as_close_as_those_of_a_truncated_svd_of_equal_size(kind, atoms, sparsity):
    X, W = inputs(), draw(24, 40)
    if (
        kind == "clusters"
    ):  # of columns in few planes, where a dictionary is far better; noise has no such form
        W = torch.cat([draw(24, 2, seed=k) @ draw(2, 10, seed=k + 9) for k in range(4)], 1)
    gram = X.mT @ X
    found = kernels.sparse_dictionary(W, atoms, sparsity, gram)
    rank = min((24 * atoms + 40 * sparsity) // 64, 24)
    plain = kernels.truncated_svd(W, rank, gram)
    error, largest = (norm(X @ (W - A @ B)) for A, B in (found, plain))
    assert error <= (1 + 1e-6) * largest + 1e-9 * norm(X @ W)  # rounding, where both are exact
    used = (found.dictionary != 0).any(0).sum() * 24 + (found.coefficients != 0).sum()
    assert used <= 24 * atoms + 40 * sparsity


def test_a_dictionary_finds_columns_in_few_planes():
    W = torch.cat([draw(24, 2, seed=k) @ draw(2, 10, seed=k + 9) for k in range(4)], 1)
    dictionary, coefficients = kernels.sparse_dictionary(W, 8, 2)
    assert ((coefficients != 0).sum(0) <= 2).all()
    plain = kernels.truncated_svd(W, (24 * 8 + 40 * 2) // 64)
    assert norm(W - dictionary @ coefficients) < 0.7 * norm(W - plain.left @ plain.right)


@REAL_AND_COMPLEX
def test_dictionaries_of_a_batch_are_those_of_its_matrices(dtype):
    W = draw(3, 8, 10, dtype=dtype)
    batch = kernels.sparse_dictionary(W, 6, 2)
    for one, D, C in zip(W, *batch, strict=True):
        single = kernels.sparse_dictionary(one, 6, 2)
        torch.testing.assert_close(D @ C, single.dictionary @ single.coefficients)


# low rank plus sparse


@REAL_AND_COMPLEX
def test_a_low_rank_matrix_with_a_few_large_entries_is_taken_apart(dtype):
    low_rank = draw(2, 20, 2, dtype=dtype) @ draw(2, 2, 30, dtype=dtype, seed=1)
    sparse = 20 * draw(2, 20, 30, dtype=dtype, seed=2) * (draw(2, 20, 30, seed=3) > 2.2)
    density = ((sparse != 0).flatten(-2).sum(-1).max() / 600).item()
    left, right, found = kernels.low_rank_plus_sparse(low_rank + sparse, 2, density)
    assert (norm(left @ right - low_rank) < 1e-6 * norm(low_rank)).all()
    torch.testing.assert_close(found, sparse, atol=1e-6, rtol=0)


@pytest.mark.parametrize("density", [0.0, 0.05, 0.3])
def test_low_rank_plus_sparse_is_as_close_as_the_truncated_svd(density):
    W = draw(12, 15)
    plain = kernels.truncated_svd(W, 3)
    left, right, sparse = kernels.low_rank_plus_sparse(W, 3, density)
    error, largest = norm(W - left @ right - sparse), norm(W - plain.left @ plain.right)
    assert error <= largest * (1 - density / 2)
    assert (sparse != 0).sum() <= density * W.numel()


# what is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernels.monarch_project(draw(6, 9), 2), "blocks must divide the rows and columns of"),
        (lambda: kernels.monarch_project(draw(6, 9), 3, 3), "rank must be from 1 to 2 for"),
        (lambda: kernels.truncated_svd(draw(6, 9), 7), "rank must be from 1 to 6 for"),
        (
            lambda: kernels.truncated_svd(draw(6, 9), 2, draw(9, 9)),
            "gram .* must have one row for each row of",
        ),
        (
            lambda: kernels.truncated_svd(draw(6, 9), 2, None, draw(6, 6)),
            r"output_gram \(6, 6\) .* must have one row for each column of matrix \(6, 9\)",
        ),
        (lambda: kernels.sparse_dictionary(draw(6, 9), 0, 1), "atoms must be at least 1"),
        (lambda: kernels.sparse_dictionary(draw(6, 9), 4, 5), "sparsity must be from 1 to 4"),
        (lambda: kernels.low_rank_plus_sparse(draw(6, 9), 0, 0.5), "rank must be from 1 to 6"),
        (lambda: kernels.low_rank_plus_sparse(draw(6, 9), 2, 1.5), "density must be from 0 to 1"),
        (lambda: kernels.monarch_project(torch.ones(4, 4).half(), 2), "single or double precision"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda A: kernels.monarch_project(A, 2),
        lambda A: kernels.truncated_svd(A, 2),
        lambda A: kernels.sparse_dictionary(A, 4, 2),
        lambda A: kernels.low_rank_plus_sparse(A, 2, 0.1),
    ],
)
def test_nan_is_refused(call):
    with pytest.raises(torch.linalg.LinAlgError, match="NaN or infinity"):
        call(torch.full((4, 6), torch.nan))
