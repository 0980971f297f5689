"""svd, svdvals, eigh and leading_singular_triplet: what defines each result, on matrices that are hard."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfoldkit import kernels
from unfoldkit.kernels.leading_triplet import reference as triplet_reference

EXAMPLES = settings(max_examples=60)
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
ANY = {
    "seed": st.integers(0, 10**6),
    "kind": st.sampled_from(("gaussian", "zero", "rank one", "repeated", "graded")),
    "m": st.integers(1, 12),
    "n": st.integers(1, 12),
    "dtype": st.sampled_from(DTYPES),
    "exponent": st.sampled_from((-30, 0, 30)),
}
ULP = 300  # "a few hundred units in the last place of the largest singular value"


def ulps(error: torch.Tensor, scale: torch.Tensor | float, dtype: torch.dtype) -> float:
    """The largest entry of an error, in units in the last place of a scale."""
    if error.numel() == 0:
        return 0.0
    unit = torch.as_tensor(scale, dtype=torch.float64) * torch.finfo(dtype).eps
    return float((error.abs().double() / unit.clamp_min(1e-300)).max())


def double(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.to(torch.complex128 if matrix.is_complex() else torch.float64)


def eye_error(columns: torch.Tensor) -> torch.Tensor:
    return columns.mH @ columns - torch.eye(columns.shape[-1], dtype=columns.dtype)


@EXAMPLES
@given(**ANY)
def test_svd_reconstructs_is_orthogonal_ordered_and_agrees_with_lapack(
    matrices, seed, kind, m, n, dtype, exponent
):
    matrix = matrices(seed, kind, m, n, dtype, exponent)
    U, S, Vh = kernels.svd(matrix)
    exact = torch.linalg.svdvals(double(matrix))
    largest = exact[..., :1]
    assert S.dtype == dtype.to_real()
    assert bool((S[..., :-1] >= S[..., 1:]).all())
    assert ulps(S.double() - exact, largest, dtype) < ULP
    assert ulps(kernels.svdvals(matrix).double() - exact, largest, dtype) < ULP
    assert ulps((double(U) * S[..., None, :]) @ double(Vh) - double(matrix), largest[..., None], dtype) < ULP
    assert ulps(eye_error(U), 1.0, dtype) < ULP
    assert ulps(eye_error(Vh.mH), 1.0, dtype) < ULP


@EXAMPLES
@given(**{key: value for key, value in ANY.items() if key != "m"})
def test_eigh_reconstructs_is_orthogonal_ordered_and_agrees_with_lapack(
    matrices, seed, kind, n, dtype, exponent
):
    square = matrices(seed, kind, n, n, dtype, exponent)
    matrix = square / 2 + square.mH / 2
    values, Q = kernels.eigh(matrix)
    exact = torch.linalg.eigvalsh(double(matrix))
    norm = torch.linalg.matrix_norm(double(matrix))[..., None]
    assert bool((values[..., :-1] <= values[..., 1:]).all())
    assert ulps(values.double() - exact, norm, dtype) < ULP
    assert (
        ulps((double(Q) * values[..., None, :]) @ double(Q).mH - double(matrix), norm[..., None], dtype) < ULP
    )
    assert ulps(eye_error(Q), 1.0, dtype) < ULP


@EXAMPLES
@given(**ANY)
def test_leading_triplet_satisfies_its_equations(matrices, seed, kind, m, n, dtype, exponent):
    matrix = matrices(seed, kind, m, n, dtype, exponent)
    sigma, u, v = kernels.leading_singular_triplet(matrix)
    exact = torch.linalg.svdvals(double(matrix))[..., 0]
    wide = double(matrix)
    assert ulps(sigma.double() - exact, exact, dtype) < 20
    assert ulps(torch.linalg.vector_norm(double(u), dim=-1) - 1, 1.0, dtype) < 20
    assert ulps(torch.linalg.vector_norm(double(v), dim=-1) - 1, 1.0, dtype) < 20
    forward = (wide @ double(v)[..., None])[..., 0] - sigma[..., None] * double(u)
    backward = (wide.mH @ double(u)[..., None])[..., 0] - sigma[..., None] * double(v)
    assert ulps(forward, exact[..., None], dtype) < ULP
    assert ulps(backward, exact[..., None], dtype) < ULP
    pivot = u.gather(-1, u.abs().argmax(-1, keepdim=True))
    assert bool((pivot.real > 0).all())
    assert ulps(pivot.imag if pivot.is_complex() else pivot * 0, 1.0, dtype) < 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_leading_triplet_equals_the_full_decomposition(matrices, dtype):
    matrix = matrices(3, "gaussian", 6, 30, dtype, batch=(4,))
    for result, expected in zip(
        kernels.leading_singular_triplet(matrix), triplet_reference(matrix), strict=True
    ):
        torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 3), (2, 3, 0), (0, 2, 2, 2)])
def test_empty_batches_and_matrices(shape):
    empty = torch.randn(shape)
    U, S, Vh = kernels.svd(empty)
    k = min(shape[-2:])
    assert (U.shape, S.shape, Vh.shape) == (
        (*shape[:-1], k),
        (*shape[:-2], k),
        (*shape[:-2], k, shape[-1]),
    )
    assert kernels.svdvals(empty).shape == S.shape
    if shape[-1] == shape[-2]:
        assert kernels.eigh(empty).eigenvalues.shape == shape[:-1]
    if 0 not in shape[-2:]:
        assert kernels.leading_singular_triplet(empty).v.shape == (*shape[:-2], shape[-1])


def test_a_split_batch_equals_the_whole(matrices):
    """The batch is split over threads: each matrix gets what it gets alone."""
    matrix = matrices(0, "gaussian", 5, 4, torch.float64, batch=(67,))
    U, S, Vh = kernels.svd(matrix)
    for i in (0, 33, 66):
        torch.testing.assert_close((U[i] * S[i]) @ Vh[i], matrix[i])
        torch.testing.assert_close(S[i], torch.linalg.svdvals(matrix[i]))


@pytest.mark.parametrize(
    "function", [kernels.svd, kernels.svdvals, kernels.eigh, kernels.leading_singular_triplet]
)
def test_strides_do_not_matter(matrices, function):
    matrix = matrices(5, "gaussian", 4, 4, torch.float64, batch=())
    matrix = matrix + matrix.mT
    expanded = matrix.expand(3, 4, 4)
    transposed = matrix.mT.contiguous().mT
    expected = function(matrix)
    for one, many, turned in zip(
        *map(_as_tuple, (expected, function(expanded), function(transposed))), strict=True
    ):
        torch.testing.assert_close(many[1], one)
        torch.testing.assert_close(turned, one)


def _as_tuple(result):
    return (result,) if isinstance(result, torch.Tensor) else tuple(result)


@pytest.mark.parametrize(
    "function", [kernels.svd, kernels.svdvals, kernels.eigh, kernels.leading_singular_triplet]
)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_name_the_argument(function, bad):
    matrix = torch.eye(3)
    matrix[1, 1] = bad
    with pytest.raises(torch.linalg.LinAlgError, match="matrix holds NaN or infinity"):
        function(matrix)


@pytest.mark.parametrize(
    "function", [kernels.svd, kernels.svdvals, kernels.eigh, kernels.leading_singular_triplet]
)
def test_wrong_shapes_and_dtypes_say_so(function):
    with pytest.raises(ValueError, match=r"matri.*\(3,\)"):
        function(torch.ones(3))
    with pytest.raises(ValueError, match="bfloat16"):
        function(torch.eye(3, dtype=torch.bfloat16))
    if function is kernels.eigh:
        with pytest.raises(ValueError, match=r"\(2, 3\)"):
            function(torch.ones(2, 3))
    if function is kernels.leading_singular_triplet:
        with pytest.raises(ValueError, match=r"\(0, 3\)"):
            function(torch.ones(0, 3))


def test_eigh_reads_the_lower_triangle(matrices):
    matrix = matrices(1, "gaussian", 4, 4, torch.complex128)
    hermitian = (
        matrix.tril(-1) + matrix.tril(-1).mH + torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1).real)
    )
    torch.testing.assert_close(kernels.eigh(matrix).eigenvalues, kernels.eigh(hermitian).eigenvalues)


def test_eigh_of_a_gpu_takes_a_large_batch_in_parts(matrices, monkeypatch):
    module = sys.modules["unfoldkit.kernels.eigh"]
    monkeypatch.setattr(module, "LIBRARY_BATCH", 2)
    matrix = matrices(1, "gaussian", 4, 4, torch.complex128)
    scales = torch.tensor([1e-9, 1.0, 1e3, 0.0, 1e9]).reshape(5, *[1] * matrix.ndim)
    hermitian = (matrix + matrix.mH) * scales
    values, vectors = module._scaled(hermitian)
    exact = torch.linalg.eigh(hermitian)
    torch.testing.assert_close(values, exact.eigenvalues)
    torch.testing.assert_close((vectors * values[..., None, :]) @ vectors.mH, hermitian)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_where_lapack_fails_in_single_precision_double_precision_serves(monkeypatch, matrices, dtype):
    square = matrices(0, "gaussian", 20, 20, dtype)
    A = square @ square.mH
    expected = kernels.eigh(A)
    library = torch.linalg.eigh

    def failing(matrix):
        values, Q = library(matrix)
        return values * (torch.nan if matrix.dtype == dtype else 1), Q

    monkeypatch.setattr(torch.linalg, "eigh", failing)
    found = kernels.eigh(A)
    assert found.eigenvectors.dtype == dtype
    torch.testing.assert_close(found.eigenvalues, expected.eigenvalues, rtol=1e-5, atol=1e-4)
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: (torch.full((20,), torch.nan), matrix))
    with pytest.raises(torch.linalg.LinAlgError, match="converge"):
        kernels.eigh(A)
