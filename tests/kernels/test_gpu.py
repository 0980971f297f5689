"""The kernels on a GPU against the CPU: `python -m pytest -m gpu tests/kernels`."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import sys

import pytest
import torch

from unfoldkit import kernels
from unfoldkit.kernels.gpu import small_svd

from .test_dense import KINDS as HARD
from .test_dense import assert_eigh, assert_svd

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("kernels_compiled"),
]
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
KINDS = ("gaussian", "zero", "rank one", "repeated", "graded")
SIZES = (
    (4, 4),
    (9, 9),
    (32, 32),
    (33, 33),
    (64, 64),
    (17, 9),
    (9, 17),
    (200, 20),
    (128, 128),
    (1, 7),
    (7, 1),
)


def double(x):
    return x.cpu().to(torch.complex128 if x.is_complex() else torch.float64)


def assert_ulps(actual, expected, scale, dtype, ulp=500):
    error = float((double(actual) - double(expected)).abs().max())
    assert error <= ulp * torch.finfo(dtype).eps * float(scale), error / torch.finfo(dtype).eps / float(scale)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_decompositions(matrices, dtype, size):
    """All kinds and sizes of numbers in one batch, each held to its own norm."""
    ulp = 500 if max(size) <= 64 else 1000
    scales = [(kind, exponent) for kind in KINDS for exponent in (0, -30, 30)]
    batch = torch.cat([matrices(0, kind, *size, dtype, exponent, batch=(2,)) for kind, exponent in scales])
    decomposed, triplets = kernels.svd(batch.cuda()), kernels.leading_singular_triplet(batch.cuda())
    assert decomposed.S.is_cuda
    identity = torch.eye(min(size))
    for i, matrix in enumerate(double(batch)):
        U, S, Vh = (double(x[i]) for x in decomposed)
        sigma, u, v = (double(x[i]) for x in triplets)
        exact = torch.linalg.svdvals(matrix)
        largest = max(float(exact[0]), 1e-300)
        assert_ulps(S, exact, largest, dtype, ulp)
        assert_ulps((U * S) @ Vh, matrix, largest, dtype, ulp)
        assert_ulps(U.mH @ U, identity, 1, dtype, ulp)
        assert_ulps(Vh @ Vh.mH, identity, 1, dtype, ulp)
        assert_ulps(sigma, exact[0], largest, dtype, ulp)
        assert_ulps(matrix @ v, sigma * u, largest, dtype, ulp)


@pytest.mark.parametrize("n", sorted({m for m, n in SIZES if m == n}))
@pytest.mark.parametrize("dtype", DTYPES)
def test_eigendecompositions(matrices, dtype, n):
    ulp = 500 if n <= 64 else 1000
    scales = [(kind, exponent) for kind in KINDS for exponent in (0, -30, 30)]
    square = torch.cat([matrices(0, kind, n, n, dtype, exponent, batch=(2,)) for kind, exponent in scales])
    hermitian = square / 2 + square.mH / 2
    values, vectors = kernels.eigh(hermitian.cuda())
    for A, found, Q in zip(double(hermitian), double(values), double(vectors), strict=True):
        norm = max(float(torch.linalg.matrix_norm(A)), 1e-300)
        assert_ulps(found, torch.linalg.eigvalsh(A), norm, dtype, ulp)
        assert_ulps((Q * found) @ Q.mH, A, norm, dtype, ulp)
        assert_ulps(Q.mH @ Q, torch.eye(n), 1, dtype, ulp)


@pytest.mark.parametrize("n", [16, 32, 128])
@pytest.mark.parametrize("dtype", DTYPES)
def test_hard_matrices(hard, dtype, n):
    matrix = torch.stack([hard(kind, n, n, dtype) for kind in HARD])
    assert_svd(matrix, *(x.cpu() for x in kernels.svd(matrix.cuda())))
    hermitian = matrix / 2 + matrix.mH / 2
    assert_eigh(hermitian, *(x.cpu() for x in kernels.eigh(hermitian.cuda())))


@pytest.mark.parametrize("size", [(32, 32), (7, 12)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_small_ones_in_rounds_and_parts(hard, dtype, size, monkeypatch):
    """Where the rotations of a matrix, or the matrices of a batch, are more than there is room for at once."""
    matrix = torch.stack([hard(kind, *size, dtype) for kind in HARD])
    monkeypatch.setattr(small_svd, "rotations", lambda n: 2 * n)
    monkeypatch.setattr(small_svd, "MOST_BYTES", 7 * sum(small_svd.sizes(dtype, max(size), min(size), True)))
    assert_svd(matrix, *(x.cpu() for x in kernels.svd(matrix.cuda())))


@pytest.mark.parametrize("size", [(20_000, 6), (6, 20_000), (300, 200)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_long_matrices_and_values_alone(matrices, dtype, size):
    matrix = matrices(0, "graded", *size, dtype, batch=(7,))
    U, S, Vh = kernels.svd(matrix.cuda())
    exact = torch.linalg.svdvals(double(matrix))
    for values in (S, kernels.svdvals(matrix.cuda())):
        assert_ulps(values, exact, exact.max(), dtype, 1000)
    assert_ulps((double(U) * double(S)[..., None, :]) @ double(Vh), matrix, exact.max(), dtype, 1000)


@pytest.mark.parametrize("function", [kernels.svd, kernels.svdvals, kernels.eigh])
@pytest.mark.parametrize("n", [3, 20, 40])
def test_what_is_not_finite_says_so(function, n):
    matrix = torch.eye(n).repeat(9, 1, 1).cuda()
    matrix[7, 1, 1] = torch.nan
    with pytest.raises(torch.linalg.LinAlgError, match="matrix holds NaN or infinity"):
        function(matrix)


@pytest.mark.parametrize("n", range(1, 129, 3))
def test_every_order(matrices, n):
    matrix = matrices(n, "gaussian", n, n, torch.float32, batch=(6,)).cuda()
    U, S, Vh = kernels.svd(matrix)
    assert_ulps((double(U) * double(S)[..., None, :]) @ double(Vh), matrix, S.max(), torch.float32)
    hermitian = matrix + matrix.mT
    values, Q = kernels.eigh(hermitian)
    norm = torch.linalg.matrix_norm(hermitian).max()
    assert_ulps((double(Q) * double(values)[..., None, :]) @ double(Q).mT, hermitian, norm, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_low_rank_steps_equal_the_cpu(matrices, dtype):
    D, X, Y = (matrices(seed, "gaussian", 40, 24, dtype, batch=(3,)) for seed in range(3))
    mu = torch.tensor([0.5, 1.0, 2.0], dtype=dtype.to_real())
    results = kernels.lowrank_sparse_step(D.cuda(), X.cuda(), Y.cuda(), mu.cuda(), 0.3)
    exact = kernels.lowrank_sparse_step(double(D), double(X), double(Y), mu.double(), 0.3)
    for result, expected in zip(results, exact, strict=True):
        assert_ulps(result, expected, expected.abs().max(), dtype, ulp=1000)


def test_nonnegative_least_squares_equals_the_cpu():
    generator = torch.Generator().manual_seed(0)
    C = 3 * torch.eye(18).double() + torch.randn(200, 18, 18, generator=generator, dtype=torch.float64)
    b = torch.randn(200, 18, generator=generator, dtype=torch.float64)
    found = kernels.nonnegative_least_squares(C.cuda(), b.cuda())
    torch.testing.assert_close(found.cpu(), kernels.nonnegative_least_squares(C, b))


@pytest.mark.parametrize("size", [(256, 256), (40, 33), (5, 9)])
def test_convolution_and_its_gradients(size, monkeypatch):
    monkeypatch.setattr(sys.modules["unfoldkit.kernels.conv"], "DIRECT_ON_GPU", 1e9)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 8, *size, generator=generator).cuda().requires_grad_()
    weight = torch.randn(8, 8, 17, 17, generator=generator).cuda().requires_grad_()
    result = kernels.large_kernel_conv2d(images, weight)
    exact_inputs = [double(x.detach()).requires_grad_() for x in (images, weight)]
    exact = torch.nn.functional.conv2d(exact_inputs[0], exact_inputs[1], padding=8)
    grads = torch.autograd.grad(result, (images, weight), result.detach())
    wanted = torch.autograd.grad(exact, exact_inputs, exact.detach())
    for one, other in zip((result, *grads), (exact, *wanted), strict=True):
        assert float((double(one) - other.detach()).norm() / other.detach().norm()) < 1e-5


def test_compiles_in_one_graph(matrices):
    def use(A):
        U, S, Vh = kernels.svd(A)
        return (U * S[..., None, :]) @ Vh + kernels.singular_value_threshold(A, 0.5)

    matrix = matrices(0, "gaussian", 8, 8, torch.float32).cuda()
    torch.testing.assert_close(torch.compile(use, fullgraph=True)(matrix), use(matrix), rtol=1e-4, atol=1e-4)


def test_gradients(matrices):
    matrix = matrices(0, "gaussian", 4, 5, torch.complex128).cuda().requires_grad_()
    assert torch.autograd.gradcheck(lambda A: kernels.singular_value_threshold(A, 0.5), matrix)
    assert torch.autograd.gradcheck(kernels.leading_singular_triplet, matrix)
    assert torch.autograd.gradcheck(kernels.svdvals, matrix)


def test_mixed_devices_say_so():
    with pytest.raises(ValueError, match="cuda"):
        kernels.soft_threshold(torch.ones(3).cuda(), torch.ones(3))
    with pytest.raises(ValueError, match="cuda"):
        kernels.kron_matvec([torch.eye(2), torch.eye(2).cuda()], torch.ones(4))
