"""Every Triton kernel, run by Triton's interpreter on the CPU, against the PyTorch reference.

The interpreter is chosen when a kernel is defined, so the cases run in a process of their own.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
case = pytest.mark.skipif(not INTERPRETED, reason="run by test_in_the_interpreter")
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
KINDS = ("gaussian", "zero", "rank one", "repeated", "graded")


@pytest.mark.skipif(INTERPRETED, reason="is the caller")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    run = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    print(run.stdout)
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


def assert_close(actual, expected, scale, ulp=300):
    error = (actual - expected).abs().double().amax() if actual.numel() else torch.tensor(0.0)
    assert float(error) <= ulp * torch.finfo(actual.dtype).eps * float(scale)


@case
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *((kind, (4, 4)) for kind in KINDS),
        *(("gaussian", shape) for shape in ((7, 3), (3, 7), (1, 5), (5, 1))),
    ],
)
def test_svd(matrices, kind, dtype, shape):
    from unfoldkit.kernels.gpu.jacobi import svd

    for exponent in (0, -30, 30) if shape == (7, 3) else (0,):
        matrix = matrices(0, kind, *shape, dtype, exponent)
        U, S, Vh = svd(matrix)
        exact = torch.linalg.svdvals(matrix.to(torch.complex128))
        largest = exact.max()
        identity = torch.eye(min(shape), dtype=dtype)
        assert bool((S[..., :-1] >= S[..., 1:]).all())
        assert_close(
            S.double(), exact.double(), largest * torch.finfo(dtype).eps / torch.finfo(torch.float64).eps
        )
        assert_close((U * S[..., None, :]) @ Vh, matrix, largest)
        assert_close(U.mH @ U, identity, 1)
        assert_close(Vh @ Vh.mH, identity, 1)


@case
@pytest.mark.parametrize("n", [1, 4, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128])
@pytest.mark.parametrize("kind", KINDS)
def test_eigh(matrices, kind, dtype, n):
    from unfoldkit.kernels.gpu.jacobi import eigh

    square = matrices(1, kind, n, n, dtype)
    matrix = square + square.mH
    values, Q = eigh(
        square.tril(-1) + square.mH.tril(-1) + torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))
    )
    exact = torch.linalg.eigvalsh(matrix.to(torch.complex128))
    norm = torch.linalg.matrix_norm(matrix).max()
    assert bool((values[..., :-1] <= values[..., 1:]).all())
    assert_close(values.double(), exact, norm * torch.finfo(dtype).eps / torch.finfo(torch.float64).eps)
    assert_close((Q * values[..., None, :]) @ Q.mH, matrix, norm)
    assert_close(Q.mH @ Q, torch.eye(n, dtype=dtype), 1)


@case
def test_a_tall_matrix_is_reduced_first(matrices):
    from unfoldkit.kernels.gpu.jacobi import svd

    matrix = matrices(2, "gaussian", 70, 3, torch.float32)
    U, S, Vh = svd(matrix)
    assert_close((U * S[..., None, :]) @ Vh, matrix, S.max())
    assert_close(S, torch.linalg.svdvals(matrix), S.max())


@case
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "shape"), [*((kind, (5, 40)) for kind in KINDS), ("gaussian", (1, 3)), ("gaussian", (17, 17))]
)
def test_leading_vector(matrices, kind, dtype, shape):
    from unfoldkit.kernels.gpu.leading_triplet import leading_vector

    matrix = matrices(3, kind, *shape, dtype)
    u, image = leading_vector(matrix)
    exact = torch.linalg.svdvals(matrix.to(torch.complex128))[..., 0]
    sigma = torch.linalg.vector_norm(image, dim=-1)
    assert_close(sigma.double(), exact, exact.max() * torch.finfo(dtype).eps / torch.finfo(torch.float64).eps)
    residual = (matrix @ image[..., None])[..., 0] - sigma[..., None] ** 2 * u
    assert_close(residual, torch.zeros_like(residual), exact.max() ** 2)


@case
@pytest.mark.parametrize("dtype", DTYPES)
def test_sparse_dual_update(matrices, dtype):
    from unfoldkit.kernels.gpu.low_rank import sparse_dual_update
    from unfoldkit.kernels.low_rank import sparse_dual_reference

    arrays = [matrices(seed, "gaussian", 30, 40, dtype) for seed in range(3)]
    arrays[0][0, 0] = arrays[1][0, 0] = arrays[2][0, 0] = 0
    levels = [torch.tensor(x, dtype=dtype.to_real()) for x in ([1.5, 0.3], [0.4, 0.1])]
    results, expected = sparse_dual_update(*arrays, *levels), sparse_dual_reference(*arrays, *levels)
    for result, reference in zip(results, expected, strict=True):
        assert_close(result, reference, reference.abs().max(), ulp=30)


@case
@pytest.mark.parametrize("n", [1, 7, 18])
def test_nonnegative_least_squares(n):
    from unfoldkit.kernels.gpu.nonnegative import pivoting as on_chip
    from unfoldkit.kernels.nonnegative import FULL_EXCHANGES, pivoting

    generator = torch.Generator().manual_seed(n)
    C = torch.eye(n).double() * 3 + torch.randn(4, n, n, generator=generator, dtype=torch.float64)
    b = torch.randn(4, n, generator=generator, dtype=torch.float64)
    H, q = C.mT @ C, (C.mT @ b[..., None])[..., 0]
    guess = torch.rand(4, n, generator=generator) < 0.5
    positive, solution = on_chip(H, q, guess, FULL_EXCHANGES)
    expected_positive, expected = pivoting(H, q, guess)
    assert torch.equal(positive, expected_positive)
    assert_close(solution, expected, expected.abs().max() * torch.linalg.cond(H).max())
