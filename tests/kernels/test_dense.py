"""The CUDA C of small decompositions: compiled, and run on a CPU with a fiber for each thread of a block."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import ctypes
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from unfoldkit.common import nvrtc as cuda
from unfoldkit.kernels.gpu import dense, leading_triplet, small_svd
from unfoldkit.kernels.gpu.compile import _argument

HOST = Path(__file__).with_name("dense_on_host.cpp")
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
KINDS = (
    *("gaussian", "zero", "rank one", "repeated", "graded"),
    *("kahan", "laeuchli", "nilpotent", "denormal", "every second column"),
)
FEW = ("gaussian", "repeated", "nilpotent")
ULP = 300
on_host = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def double(x):
    return x.to(torch.complex128 if x.is_complex() else torch.float64)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A function that gives a kernel of this folder as C++ with these definitions."""
    folder = tmp_path_factory.mktemp("dense")

    @lru_cache
    def build(name, definitions):
        built = folder / f"{name}-{abs(hash(definitions))}.so"
        options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-unknown-pragmas", f"-D{name.upper()}"]
        options += [f"-D{key}={value}" for key, value in definitions]
        options += [f'-DDECOMPOSITION="{dense.FOLDER.resolve() / name}.cu"']
        subprocess.run(["g++", *options, HOST, "-o", built], check=True)
        return ctypes.CDLL(str(built))

    return build


def launcher(library, name):
    """A kernel as `cuda.Kernel` launches it."""

    def launch(grid, block, shared, *arguments):
        values = [_argument(x) for x in arguments]
        addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        library[f"launch_{name}"](grid, block, addresses)

    return launch


@pytest.fixture
def run(library, run_small):
    """A function that decomposes (batch, rows, columns) as `dense` would; on_chip: where the matrices are kept."""

    def decompose(name, matrix, vectors=True, on_chip=True, shape=None):
        batch, rows, columns = matrix.shape
        m, n = max(rows, columns), min(rows, columns)
        if name == "svd" and m <= dense.WARP and not shape:
            return run_small(matrix, vectors)
        warps, lanes = shape or dense.layout(m if name == "eigh" else m + n)
        held, scratch = dense.memory(name, matrix.dtype, m, n, warps, vectors)
        definitions = dense.definitions(name, matrix.dtype, warps, lanes, on_chip, n)
        first, values, last = unset(matrix)
        workspace = matrix.new_full((batch, 2 * n * (m + 1)), torch.nan)
        failed = torch.zeros(1, dtype=torch.int32)
        pointers = [matrix, first, values, last, workspace, failed]
        sizes = [m, n, m | 1, n | 1, int(rows < columns), int(vectors)]
        if name == "eigh":
            pointers, sizes = [matrix, first, values, workspace, failed], [n, n | 1]
        sharing = dense.group(matrix.dtype, warps, lanes)
        blocks, room = -(-batch // max(1, sharing * 32 // lanes)), scratch + (held if on_chip else 0)
        built = library(name, tuple(definitions.items()))
        launcher(built, f"{name}_kernel")(blocks, 32 * max(warps, sharing), 0, *pointers, batch, room, *sizes)
        return first, values, last, int(failed)

    return decompose


@pytest.fixture
def run_small(library, monkeypatch):
    """A function that decomposes (batch, rows, columns), of at most 32, as `small_svd` would."""

    def compiled(dtype, device, rows):
        built = library("small_svd", tuple(small_svd.definitions(dtype, rows).items()))
        return small_svd.Kernels(*(launcher(built, name) for name in small_svd.Kernels._fields))

    monkeypatch.setattr(small_svd, "compiled", compiled)
    monkeypatch.setattr(small_svd, "wait", lambda device: None)

    def decompose(matrix, vectors=True):
        U, S, Vh = unset(matrix)
        failed = torch.zeros(1, dtype=torch.int32)
        small_svd.decompose(matrix, U, S, Vh, vectors, failed)
        return U, S, Vh, int(failed)

    return decompose


def unset(matrix):
    """Room for U, S and Vh."""
    batch, rows, columns = matrix.shape
    n = min(rows, columns)
    values = matrix.new_full((batch, n), torch.nan, dtype=matrix.dtype.to_real())
    return (
        matrix.new_full((batch, rows, n), torch.nan),
        values,
        matrix.new_full((batch, n, columns), torch.nan),
    )


def assert_ulps(actual, expected, scale, dtype, ulp=ULP):
    """Up to the spacing of denormal numbers, which bounds what can be said of the least."""
    error = float((double(actual) - double(expected)).abs().max())
    least = 4 * torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    assert error <= ulp * torch.finfo(dtype).eps * float(scale) + least, (
        error / torch.finfo(dtype).eps / float(scale)
    )


def assert_eigh(matrix, values, Q):
    for A, found, V in zip(double(matrix), values, Q, strict=True):
        norm = max(float(torch.linalg.matrix_norm(A)), 1e-300)
        assert bool((found[1:] >= found[:-1]).all())
        assert_ulps(found, torch.linalg.eigvalsh(A), norm, matrix.dtype)
        assert_ulps((double(V) * double(found)) @ double(V).mH, A, norm, matrix.dtype)
        assert_ulps(double(V).mH @ double(V), torch.eye(len(found)), 1, matrix.dtype)


def assert_svd(matrix, U, S, Vh):
    for A, u, s, vh in zip(double(matrix), U, S, Vh, strict=True):
        exact = torch.linalg.svdvals(A)
        norm = max(float(exact[0]), 1e-300)
        assert bool((s[1:] <= s[:-1]).all())
        assert bool((s >= 0).all())
        assert_ulps(s, exact, norm, matrix.dtype)
        assert_ulps((double(u) * double(s)) @ double(vh), A, norm, matrix.dtype)
        assert_ulps(double(u).mH @ double(u), torch.eye(len(s)), 1, matrix.dtype)
        assert_ulps(double(vh) @ double(vh).mH, torch.eye(len(s)), 1, matrix.dtype)


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_eigh_of_hard_matrices_that_share_a_warp(run, hard, n, dtype):
    square = torch.stack([hard(kind, n, n, dtype) for kind in KINDS])
    matrix = square / 2 + square.mH / 2
    Q, values, _, failed = run("eigh", matrix)
    assert failed == 0
    assert_eigh(matrix, values, Q)


@on_host
@pytest.mark.parametrize(("n", "dtype"), [(16, torch.complex128), (32, torch.complex64), (34, torch.float32)])
def test_eigh_of_larger_ones(run, hard, n, dtype):
    square = torch.stack([hard(kind, n, n, dtype) for kind in FEW])
    matrix = square / 2 + square.mH / 2
    Q, values, _, failed = run("eigh", matrix)
    assert failed == 0
    assert_eigh(matrix, values, Q)


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (2, 5), (8, 8)])
def test_svd_of_hard_matrices_that_share_a_warp(run, hard, size, dtype):
    matrix = torch.stack([hard(kind, *size, dtype) for kind in KINDS])
    *factors, failed = run("svd", matrix)
    assert failed == 0
    assert_svd(matrix, *factors)


@on_host
@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        ((32, 20), torch.complex64),
        ((32, 32), torch.float32),
        ((9, 21), torch.float64),
        ((12, 34), torch.float64),
    ],
)
def test_svd_of_larger_ones(run, hard, size, dtype):
    matrix = torch.stack([hard(kind, *size, dtype) for kind in FEW])
    *factors, failed = run("svd", matrix)
    assert failed == 0
    assert_svd(matrix, *factors)


@on_host
def test_quarter_turns_lose_nothing(run, hard):
    """They follow one another by dozens, where each would lose the same."""
    matrix = hard("nilpotent", 32, 32, torch.complex64)[None]
    U, _, Vh, failed = run("svd", matrix)
    assert failed == 0
    for factor in (U[0], Vh[0]):
        assert_ulps(double(factor) @ double(factor).mH, torch.eye(32), 1, torch.complex64, ulp=5)


@on_host
def test_rounds_and_parts_change_nothing(run, hard, monkeypatch):
    """Of a few rotations each, and of three matrices."""
    matrix = torch.stack([hard(kind, 6, 8, torch.complex128) for kind in KINDS])
    at_once = run("svd", matrix)
    monkeypatch.setattr(small_svd, "rotations", lambda n: 2 * n)
    monkeypatch.setattr(small_svd, "MOST_BYTES", 3 * sum(small_svd.sizes(matrix.dtype, 8, 6, True)))
    *factors, failed = run("svd", matrix)
    assert failed == 0
    assert_svd(matrix, *factors)
    assert_ulps(factors[1], at_once[1], float(at_once[1].max()), torch.complex128, ulp=10)


@on_host
@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_order_128(run, hard, dtype):
    matrix = torch.stack([hard(kind, 128, 128, dtype) for kind in KINDS])
    *factors, failed = run("svd", matrix)
    assert failed == 0
    assert_svd(matrix, *factors)
    hermitian = matrix / 2 + matrix.mH / 2
    Q, values, _, failed = run("eigh", hermitian)
    assert failed == 0
    assert_eigh(hermitian, values, Q)


@on_host
def test_matrices_kept_off_the_chip(run, hard):
    matrix = hard("gaussian", 20, 35, torch.complex128)[None]
    *factors, failed = run("svd", matrix, on_chip=False, shape=(2, 32))
    assert failed == 0
    assert_svd(matrix, *factors)
    hermitian = matrix @ matrix.mH
    Q, values, _, failed = run("eigh", hermitian, on_chip=False, shape=(2, 32))
    assert failed == 0
    assert_eigh(hermitian, values, Q)


@on_host
@pytest.mark.parametrize("rows", [12, 33])
def test_values_alone(run, hard, rows):
    matrix = torch.stack([hard(kind, rows, 7, torch.float64) for kind in KINDS])
    U, S, _, failed = run("svd", matrix, vectors=False)
    assert failed == 0
    assert bool(U.isnan().all())
    exact = torch.linalg.svdvals(matrix)
    assert_ulps(S / exact[:, :1].clamp_min(1e-300), exact / exact[:, :1].clamp_min(1e-300), 1, torch.float64)


@on_host
@pytest.mark.parametrize("name", ["eigh", "svd"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_is_reported(run, name, value):
    matrix = torch.eye(3, dtype=torch.float64).repeat(5, 1, 1)
    matrix[3, 0, 2] = value
    *_, failed = run(name, matrix)
    assert failed == dense.NOT_FINITE


@on_host
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        *((kind, (5, 40)) for kind in ("gaussian", "rank one", "repeated", "graded")),
        ("gaussian", (1, 3)),
        ("gaussian", (17, 17)),
        ("graded", (32, 33)),
    ],
)
def test_leading_vector(library, hard, kind, shape, dtype):
    m, n = shape
    matrix = torch.stack([hard(kind, m, n, dtype) for _ in range(2)])
    matrix = matrix / matrix.abs().amax()
    warps, definitions = leading_triplet.warps_of(m), leading_triplet.definitions(dtype)
    u, image = matrix.new_full((2, m), torch.nan), matrix.new_full((2, n), torch.nan)
    squarings = leading_triplet.SQUARINGS[dtype.to_real().itemsize]
    run = launcher(library("leading_triplet", tuple(definitions.items())), "leading_vector_kernel")
    run(2, 32 * warps, leading_triplet.memory(dtype, m, warps), matrix, u, image, squarings, m, n)
    wide, u, image = double(matrix), double(u), double(image)
    exact = torch.linalg.svdvals(wide)[:, 0]
    sigma = torch.linalg.vector_norm(image, dim=-1)
    assert_ulps(sigma, exact, exact.max(), dtype, ulp=10)
    assert_ulps(torch.linalg.vector_norm(u, dim=-1), torch.ones(2), 1, dtype, ulp=10)
    residual = (wide @ image[..., None])[..., 0] - sigma[..., None] ** 2 * u
    assert_ulps(residual, torch.zeros_like(residual), exact.max() ** 2, dtype)


VARIANTS = {
    "eigh": ((torch.float32, 1, 8, True), (torch.float64, 5, 32, True), (torch.complex128, 17, 32, False)),
    "svd": ((torch.float32, 3, 32, True), (torch.float64, 5, 32, True), (torch.complex128, 17, 32, False)),
    "small_svd": ((torch.float32, 8), (torch.float64, 12), (torch.complex64, 30)),
}


@pytest.mark.parametrize(
    "variants", [slice(1), pytest.param(slice(None), marks=pytest.mark.slow)], ids=["quick", "all"]
)
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("name", VARIANTS)
def test_it_compiles(name, architecture, variants):
    try:
        cuda.nvrtc()
    except OSError:
        pytest.skip("needs NVRTC")
    for variant in VARIANTS[name][variants]:
        macros = small_svd.definitions(*variant) if name == "small_svd" else dense.definitions(name, *variant)
        assert cuda.cubin(dense.FOLDER / f"{name}.cu", architecture, **macros)


@pytest.mark.parametrize(
    "dtype", [torch.complex128, *(pytest.param(x, marks=pytest.mark.slow) for x in DTYPES)]
)
def test_leading_vectors_compile(dtype):
    try:
        cuda.nvrtc()
    except OSError:
        pytest.skip("needs NVRTC")
    assert cuda.cubin(leading_triplet.SOURCE, "sm_90", **leading_triplet.definitions(dtype))


def test_a_block_fits():
    """Of matrices that a warp shares, all together."""
    for dtype in DTYPES:
        for n in range(1, 33):
            warps, lanes = dense.layout(n)
            assert (warps, lanes >= min(n, 32), 32 % lanes) == (1, True, 0)
            held, scratch = dense.memory("eigh", dtype, n, n, warps, True)
            assert held % 16 == scratch % 16 == 0
            assert dense.group(dtype, warps, lanes) * 32 // lanes * (held + scratch) <= 160 * 1024
    assert [dense.layout(rows)[0] for rows in (33, 64, 65, 128, 129, 256, 257, 5000)] == [
        3,
        3,
        5,
        5,
        9,
        9,
        17,
        17,
    ]
