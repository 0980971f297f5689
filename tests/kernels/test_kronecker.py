"""Kronecker products against the dense matrix."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from functools import reduce

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfoldkit import kernels

EXAMPLES = settings(max_examples=50)


def draw(seed, *shape, dtype):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@EXAMPLES
@given(
    seed=st.integers(0, 10**6),
    rows=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    columns=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    dtype=st.sampled_from((torch.float32, torch.float64, torch.complex64, torch.complex128)),
    batched=st.integers(0, 15),
)
def test_equals_the_dense_product(seed, rows, columns, dtype, batched):
    factors = [
        draw(seed + i, *((3,) if batched >> i & 1 else ()), m, n, dtype=dtype)
        for i, (m, n) in enumerate(zip(rows, columns, strict=False))
    ]
    x = draw(seed - 1, 3, torch.Size(f.shape[-1] for f in factors).numel(), dtype=dtype)
    result = kernels.kron_matvec(factors, x)
    for b in range(3):
        dense = reduce(torch.kron, [f[b] if f.ndim == 3 else f for f in factors])
        expected = dense @ x[b]
        scale = float((dense.abs() @ x[b].abs()).max())
        assert float((result[b] - expected).abs().max()) <= 50 * torch.finfo(dtype).eps * scale


@EXAMPLES
@given(seed=st.integers(0, 10**6), mode=st.integers(-3, 2), rows=st.integers(0, 4), batched=st.booleans())
def test_mode_product_contracts_one_axis(seed, mode, rows, batched):
    shape = (2, 3, 4)
    tensor = draw(seed, 5, *shape, dtype=torch.float64)
    matrix = draw(seed + 1, *((5,) if batched else ()), rows, shape[mode], dtype=torch.complex128)
    axis = mode % 3 + 1
    result = kernels.mode_product(tensor, matrix, axis)
    assert result.dtype == torch.complex128
    for b in range(5):
        one = matrix[b] if batched else matrix
        expected = torch.tensordot(one, tensor[b].to(one.dtype), dims=([1], [axis - 1])).movedim(0, axis - 1)
        torch.testing.assert_close(result[b], expected)


def test_axis_zero_and_negative_axes():
    X, A = draw(0, 2, 3, dtype=torch.float64), draw(1, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(kernels.mode_product(X, A, 0), A @ X)
    torch.testing.assert_close(kernels.mode_product(X, A, -2), A @ X)


def test_empty_expanded_and_transposed_inputs():
    A, B = draw(0, 2, 3, dtype=torch.float64), draw(1, 4, 5, dtype=torch.float64)
    assert kernels.kron_matvec([A, B], torch.zeros(0, 15, dtype=torch.float64)).shape == (0, 8)
    assert kernels.kron_matvec([A[:, :0], B], torch.zeros(6, 0, dtype=torch.float64)).shape == (6, 8)
    x = draw(2, 15, dtype=torch.float64)
    one = kernels.kron_matvec([A, B], x)
    torch.testing.assert_close(kernels.kron_matvec([A.expand(7, 2, 3), B], x.expand(7, 15))[3], one)
    torch.testing.assert_close(kernels.kron_matvec([A.mT.contiguous().mT, B], x), one)


def test_wrong_shapes_and_devices_say_so():
    A, B = torch.ones(2, 3), torch.ones(4, 5)
    with pytest.raises(ValueError, match=r"\(2, 3\), \(4, 5\).*x \(14,\).*15"):
        kernels.kron_matvec([A, B], torch.ones(14))
    with pytest.raises(ValueError, match="do not fit"):
        kernels.kron_matvec([], torch.ones(1))
    with pytest.raises(ValueError, match="broadcast"):
        kernels.kron_matvec([A.expand(3, 2, 3), B], torch.ones(2, 15))
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(2, 4\)"):
        kernels.mode_product(torch.ones(3, 3), torch.ones(2, 4), 1)
    with pytest.raises(ValueError, match="batch"):
        kernels.mode_product(torch.ones(3, 3), torch.ones(3, 2, 3), 0)
    with pytest.raises(ValueError, match="meta"):
        kernels.kron_matvec([A, B], torch.ones(15, device="meta"))
