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
