"""gradcheck of every differentiable operation, also where singular values coincide or vanish."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import sys

import pytest
import torch
from torch.autograd import gradcheck

from unfoldkit import kernels

DOUBLES = (torch.float64, torch.complex128)
SHAPES = ((3, 3), (4, 3), (2, 3, 5))


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def with_values(values, m, n, dtype):
    """An m x n matrix with these singular values."""
    k = len(values)
    left, right = (
        torch.linalg.qr(draw(m, k, dtype=dtype)).Q,
        torch.linalg.qr(draw(n, k, dtype=dtype, seed=1)).Q,
    )
    return (left * torch.tensor(values, dtype=torch.float64)) @ right.mH


COINCIDING = ([3.0, 2.0, 2.0], [2.0, 2.0, 2.0], [3.0, 0.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0])


@pytest.mark.parametrize("dtype", DOUBLES)
@pytest.mark.parametrize("shape", SHAPES)
def test_svd(shape, dtype):
    m, n = shape[-2:]
    left, right, cross = draw(m, m, dtype=dtype), draw(n, n, dtype=dtype), draw(n, m, dtype=dtype)

    def phase_free(matrix):
        U, S, Vh = kernels.svd(matrix)
        return (
            torch.einsum("...ik,ij,...jk->...k", U.conj(), left, U).abs(),
            torch.einsum("...ki,ij,...kj->...k", Vh, right, Vh.conj()).abs(),
            torch.einsum("...ki,ij,...jk->...k", Vh, cross, U).abs() * S,
        )

    assert gradcheck(phase_free, draw(*shape, dtype=dtype).requires_grad_())


@pytest.mark.parametrize("dtype", DOUBLES)
@pytest.mark.parametrize("shape", SHAPES)
def test_svdvals_and_triplet(shape, dtype):
    matrix = draw(*shape, dtype=dtype).requires_grad_()
    assert gradcheck(kernels.svdvals, matrix)
    assert gradcheck(kernels.leading_singular_triplet, matrix)


@pytest.mark.parametrize("dtype", DOUBLES)
def test_eigh(dtype):
    weight = draw(4, 4, dtype=dtype)

    def phase_free(matrix):
        values, Q = kernels.eigh(matrix + matrix.mH)
        return values, torch.einsum("...ik,ij,...jk->...k", Q.conj(), weight, Q).abs()

    assert gradcheck(phase_free, draw(2, 4, 4, dtype=dtype).requires_grad_())


@pytest.mark.parametrize("dtype", DOUBLES)
@pytest.mark.parametrize("shape", SHAPES)
def test_singular_value_threshold(shape, dtype):
    matrix = draw(*shape, dtype=dtype).requires_grad_()
    level = torch.full(shape[:-2], 0.6, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.3, 0.9, 1.4], dtype=torch.float64, requires_grad=True)
    assert gradcheck(
        lambda A, t, w: kernels.singular_value_threshold(A, t, weights=w, partial=1), (matrix, level, weights)
    )
    assert gradcheck(lambda A, t: kernels.singular_value_threshold(A, t, rank=2), (matrix, level))


@pytest.mark.parametrize("dtype", DOUBLES)
@pytest.mark.parametrize("size", [(3, 3), (3, 5), (5, 3)])
@pytest.mark.parametrize("values", COINCIDING)
def test_nuclear_norm_step_where_values_coincide_or_vanish(values, size, dtype):
    matrix = with_values(values, size[0], size[1], dtype).requires_grad_()
    level = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    assert gradcheck(kernels.singular_value_threshold, (matrix, level))


@pytest.mark.parametrize("dtype", DOUBLES)
def test_smooth_functions_of_coinciding_values_are_exact(dtype):
    """The projector on a group of coinciding values, and symmetric functions, do not see the basis."""
    tied = with_values([3.0, 3.0, 1.0, 1.0], 4, 4, dtype).requires_grad_()

    def projector(matrix):
        U, S, _ = kernels.svd(matrix)
        return U[..., :2] @ U[..., :2].mH, S.sum(), S.square().sum()

    def hermitian_projector(matrix):
        values, Q = kernels.eigh(matrix @ matrix.mH)
        return Q[..., 2:] @ Q[..., 2:].mH, values.sum()

    assert gradcheck(projector, tied)
    assert gradcheck(hermitian_projector, tied)
    assert gradcheck(
        kernels.leading_singular_triplet, with_values([3.0, 1.0, 1.0], 3, 4, dtype).requires_grad_()
    )


@pytest.mark.parametrize("dtype", [torch.float32, *DOUBLES])
@pytest.mark.parametrize("values", COINCIDING)
def test_gradients_are_finite_where_values_coincide_or_vanish(values, dtype):
    matrix = with_values(values, 3, 4, torch.complex128 if dtype.is_complex else torch.float64).to(dtype)
    square = (matrix @ matrix.mH).detach()
    for function, argument in (
        (kernels.svd, matrix),
        (kernels.svdvals, matrix),
        (kernels.eigh, square),
        (kernels.leading_singular_triplet, matrix),
    ):
        argument = argument.clone().requires_grad_()
        found = function(argument)
        results = (found,) if isinstance(found, torch.Tensor) else tuple(found)
        seed = [draw(*r.shape, dtype=r.dtype, seed=2) for r in results]
        (grad,) = torch.autograd.grad(results, argument, seed)
        assert bool(grad.isfinite().all())


def test_weights_that_differ_where_values_coincide_keep_the_mean_slope():
    """Documented convention: the jump between two bases is not differentiated."""
    matrix = (2 * torch.eye(2, dtype=torch.float64)).requires_grad_()
    result = kernels.singular_value_threshold(matrix, 1.0, weights=torch.tensor([0.0, 1.0]))
    (grad,) = torch.autograd.grad(result, matrix, torch.eye(2, dtype=torch.float64))
    assert bool(grad.isfinite().all())
    assert float(grad.abs().max()) <= 1 + 1e-12


@pytest.mark.parametrize("dtype", DOUBLES)
def test_lowrank_sparse_step(dtype):
    arrays = [draw(2, 3, 4, dtype=dtype, seed=seed).requires_grad_() for seed in range(3)]
    mu = torch.tensor([1.3, 0.8], dtype=torch.float64, requires_grad=True)
    lambda_ = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(kernels.lowrank_sparse_step, (*arrays, mu, lambda_))


@pytest.mark.parametrize("dtype", DOUBLES)
def test_proximal_operators(dtype):
    x = draw(3, 4, dtype=dtype).requires_grad_()
    level = torch.full((3, 1), 0.5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(kernels.soft_threshold, (x, level))
    assert gradcheck(lambda x: kernels.hard_threshold(x, 0.5), x)
    assert gradcheck(lambda x, t: kernels.group_soft_threshold(x, t, -1), (x, level))
    zero = torch.zeros(3, 4, dtype=dtype, requires_grad=True)
    for function in (kernels.soft_threshold, lambda x, t: kernels.group_soft_threshold(x, t, -1)):
        assert gradcheck(function, (zero, level))


@pytest.mark.parametrize("dtype", DOUBLES)
def test_kronecker_products(dtype):
    factors = [draw(2, 3, 2, dtype=dtype), draw(2, 2, dtype=dtype), draw(2, 1, 3, dtype=dtype)]
    factors = [factor.requires_grad_() for factor in factors]
    x = draw(2, 12, dtype=dtype).requires_grad_()
    assert gradcheck(lambda x, *f: kernels.kron_matvec(f, x), (x, *factors))
    tensor = draw(2, 3, 4, dtype=dtype).requires_grad_()
    assert gradcheck(
        lambda X, A: kernels.mode_product(X, A, 1), (tensor, draw(2, 2, 3, dtype=dtype).requires_grad_())
    )


@pytest.mark.parametrize("padding", ["same", "valid", (1, 4)])
def test_tiled_convolution(padding, monkeypatch):
    monkeypatch.setattr(sys.modules["unfoldkit.kernels.conv"], "DIRECT", 1e9)
    arguments = draw(2, 2, 7, 6), draw(2, 2, 5, 3, seed=1), draw(2, seed=2)
    assert gradcheck(
        lambda x, w, b: kernels.large_kernel_conv2d(x, w, b, padding),
        tuple(argument.requires_grad_() for argument in arguments),
    )
