"""What every operation promises beyond its result: torch.compile, torch.func, torch.library, no GPU."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import subprocess
import sys

import pytest
import torch
from torch.library import opcheck

from unfoldkit import kernels


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def hermitian(matrix):
    return matrix + matrix.mH


WEIGHT = draw(8, 2, 17, 17, seed=9)
FACTOR, SECOND, VECTOR = draw(3, 4), draw(2, 3), draw(12)


# Functions of one batch (..., 4, 4); each returns one real tensor and depends on no phase.
def reconstruction(A):
    U, S, Vh = kernels.svd(A)
    return ((U * S[..., None, :]) @ Vh).abs() + S[..., None, :]


def triplet(A):
    sigma, u, v = kernels.leading_singular_triplet(A)
    return sigma[..., None] * u.abs() + v.abs()


USES = {
    "svd": reconstruction,
    "svdvals": kernels.svdvals,
    "eigh": lambda A: kernels.eigh(hermitian(A)).eigenvalues,
    "leading_singular_triplet": triplet,
    "soft_threshold": lambda A: kernels.soft_threshold(A, 0.5).abs(),
    "hard_threshold": lambda A: kernels.hard_threshold(A, 0.5).abs(),
    "group_soft_threshold": lambda A: kernels.group_soft_threshold(A, 0.5, -1).abs(),
    "singular_value_threshold": lambda A: kernels.singular_value_threshold(A, 0.5, partial=1).abs(),
    "lowrank_sparse_step": lambda A: sum(
        x.abs() for x in kernels.lowrank_sparse_step(A, A / 3, A / 5, 1.5, 0.4)
    ),
    "monarch_project": lambda A: kernels.monarch_project(A, 2).dense().abs(),
    "mode_product": lambda A: kernels.mode_product(A, FACTOR, -1).abs(),
    "kron_matvec": lambda A: kernels.kron_matvec([A, SECOND], VECTOR).abs(),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("name", USES)
def test_torch_compile_sees_one_graph(name, dtype):
    matrix = draw(3, 4, 4, dtype=dtype).requires_grad_()
    compiled = torch.compile(USES[name], fullgraph=True, backend="aot_eager")
    expected, result = USES[name](matrix), compiled(matrix)
    torch.testing.assert_close(result, expected)
    seed = draw(*expected.shape, seed=4)
    torch.testing.assert_close(
        torch.autograd.grad(result, matrix, seed), torch.autograd.grad(expected, matrix, seed)
    )


def test_torch_compile_of_the_tiled_convolution(monkeypatch):
    monkeypatch.setattr(sys.modules["unfoldkit.kernels.conv"], "DIRECT", 1e9)
    images, weight = draw(1, 2, 30, 40).requires_grad_(), WEIGHT.clone().requires_grad_()

    def function(images, weight):
        return kernels.large_kernel_conv2d(images, weight, torch.ones(8, dtype=weight.dtype)).relu()

    expected, result = (
        function(images, weight),
        torch.compile(function, fullgraph=True, backend="aot_eager")(images, weight),
    )
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(
        torch.autograd.grad(result.sum(), (images, weight)),
        torch.autograd.grad(expected.sum(), (images, weight)),
    )


@pytest.mark.slow
def test_default_compiler():
    """All of them in one function, by the default back end."""

    def everything(A):
        return sum(use(A).sum() for use in USES.values())

    matrix = draw(3, 4, 4)
    torch.testing.assert_close(torch.compile(everything, fullgraph=True)(matrix), everything(matrix))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("name", USES)
def test_torch_func_vmap_and_grad(name, dtype):
    batch = draw(5, 4, 4, dtype=dtype)
    use = USES[name]
    torch.testing.assert_close(torch.func.vmap(use)(batch), torch.stack([use(A) for A in batch]))
    torch.testing.assert_close(
        torch.func.vmap(use, in_dims=1)(batch.movedim(0, 1)), torch.stack([use(A) for A in batch])
    )
    grads = torch.func.vmap(torch.func.grad(lambda A: use(A).sum()))(batch)
    leaf = batch.clone().requires_grad_()
    torch.testing.assert_close(grads, torch.autograd.grad(use(leaf).sum(), leaf)[0])


def test_vmap_over_one_argument_only():
    matrix, levels = draw(4, 3), draw(5).abs()
    result = torch.func.vmap(kernels.singular_value_threshold, in_dims=(None, 0))(matrix, levels)
    torch.testing.assert_close(result[2], kernels.singular_value_threshold(matrix, levels[2]))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("svd", lambda: (draw(2, 3, 4).requires_grad_(),)),
        ("svdvals", lambda: (draw(2, 3, 4).requires_grad_(),)),
        ("eigh", lambda: (hermitian(draw(2, 3, 3)).requires_grad_(),)),
        ("leading_singular_triplet", lambda: (draw(2, 3, 4).requires_grad_(),)),
        (
            "shrink_singular_values",
            lambda: (draw(2, 3, 4).requires_grad_(), torch.full((2, 3), 0.3).double()),
        ),
        ("sparse_dual_update", lambda: (*draw(3, 2, 3, 4), torch.ones(2).double(), torch.ones(2).double())),
        ("tiled_conv2d", lambda: (draw(1, 2, 9, 9), WEIGHT.clone().requires_grad_(), None, 48, 8, 8)),
    ],
)
def test_registration_is_consistent(name, arguments):
    """Schema, fake and autograd rules agree with what the operator does."""
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    opcheck(getattr(torch.ops.unfoldkit, name).default, arguments(), test_utils=checks)


@pytest.mark.parametrize("name", ["svd", "eigh", "leading_singular_triplet", "singular_value_threshold"])
def test_autocast_changes_nothing(name):
    matrix = draw(3, 4, 4, dtype=torch.float32).requires_grad_()
    expected = USES[name](matrix)
    with torch.autocast("cpu", torch.bfloat16):
        result = USES[name](matrix) if name != "svd" else kernels.svd(matrix).S
        (grad,) = torch.autograd.grad(result.sum(), matrix)
    wanted = expected if name != "svd" else kernels.svd(matrix).S
    torch.testing.assert_close(result, wanted)
    torch.testing.assert_close(grad, torch.autograd.grad(wanted.sum(), matrix)[0])


def test_import_needs_neither_triton_nor_a_device():
    code = (
        "import sys; sys.modules['triton'] = None; import torch; from unfoldkit import kernels;"
        "print(kernels.svdvals(torch.eye(2)).tolist(), torch.cuda.is_initialized())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["[1.0,", "1.0]", "False"]


def test_import_and_calls_do_not_load_the_compiler():
    """torch._dynamo takes longer than torch itself."""
    code = (
        "import sys, torch; before = 'torch._dynamo' in sys.modules; from unfoldkit import kernels;"
        "kernels.same_conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3));"
        "kernels.batch_norm(torch.ones(2, 1, 3, 3), None, None); kernels.soft_threshold(torch.ones(3), 1.0);"
        "print(before, 'torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = run.stdout.split()
    assert after == before
