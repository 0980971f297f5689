"""Proximal operators: Moreau's identity, non-expansiveness, invariances, and the robust PCA alternation."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfoldkit import kernels
from unfoldkit.kernels.low_rank import reference, sparse_dual_reference

EXAMPLES = settings(max_examples=40)
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
ANY = {
    "seed": st.integers(0, 10**6),
    "kind": st.sampled_from(("gaussian", "zero", "rank one", "repeated", "graded")),
    "m": st.integers(1, 9),
    "n": st.integers(1, 9),
    "dtype": st.sampled_from(DTYPES),
    "exponent": st.sampled_from((-30, 0, 30)),
    "level": st.sampled_from((0.0, 0.01, 0.5, 2.0)),
}


def close(actual, expected, scale, ulp=300):
    """Equal within some hundred units in the last place of a scale."""
    wide = torch.complex128 if actual.is_complex() else torch.float64
    error = (actual.to(wide) - expected.to(wide)).abs()
    return bool((error <= ulp * torch.finfo(actual.dtype).eps * scale).all())


def norm(x):
    return float(torch.linalg.vector_norm(x.to(torch.complex128)))


def ball_projections(x, level):
    """What each penalty's conjugate projects on: Moreau's identity says x = prox(x) + projection(x)."""
    size = x.abs()
    entry = torch.where(size > level, x * (level / size.clamp_min(1e-300)), x)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    group = torch.where(length > level, x * (level / length.clamp_min(1e-300)), x)
    U, S, Vh = torch.linalg.svd(x, full_matrices=False)
    spectral = (U * S.clamp_max(level)[..., None, :]) @ Vh
    return entry, group, spectral


@EXAMPLES
@given(**ANY)
def test_moreau_identity(matrices, seed, kind, m, n, dtype, exponent, level):
    x = matrices(seed, kind, m, n, dtype, exponent)
    threshold = level * 10.0**exponent
    wide = x.to(torch.complex128 if dtype.is_complex else torch.float64)
    operators = (
        kernels.soft_threshold(x, threshold),
        kernels.group_soft_threshold(x, threshold, -1),
        kernels.singular_value_threshold(x, threshold),
    )
    for step, projection in zip(operators, ball_projections(wide, threshold), strict=True):
        assert close(step, wide - projection, norm(x))


@EXAMPLES
@given(**ANY)
def test_non_expansive(matrices, seed, kind, m, n, dtype, exponent, level):
    x, y = matrices(seed, kind, m, n, dtype, exponent), matrices(seed + 1, "gaussian", m, n, dtype, exponent)
    threshold = level * 10.0**exponent
    slack = 300 * torch.finfo(dtype).eps * (norm(x) + norm(y))
    for operator in (
        lambda z: kernels.soft_threshold(z, threshold),
        lambda z: kernels.group_soft_threshold(z, threshold, -2),
        lambda z: kernels.singular_value_threshold(z, threshold),
    ):
        assert norm(operator(x) - operator(y)) <= norm(x - y) + slack


@EXAMPLES
@given(**ANY)
def test_nuclear_norm_step_commutes_with_unitary_matrices(matrices, seed, kind, m, n, dtype, exponent, level):
    x = matrices(seed, kind, m, n, dtype, exponent)
    P = torch.linalg.qr(matrices(seed + 1, "gaussian", m, m, dtype)).Q
    Q = torch.linalg.qr(matrices(seed + 2, "gaussian", n, n, dtype)).Q
    threshold = level * 10.0**exponent
    turned = kernels.singular_value_threshold(P @ x @ Q, threshold)
    assert close(turned, P @ kernels.singular_value_threshold(x, threshold) @ Q, norm(x))


@EXAMPLES
@given(**ANY, partial=st.integers(0, 4), rank=st.integers(0, 6))
def test_weighted_partial_truncated_forms(matrices, seed, kind, m, n, dtype, exponent, level, partial, rank):
    x = matrices(seed, "gaussian" if kind == "repeated" else kind, m, n, dtype, exponent)
    k, threshold = min(m, n), level * 10.0**exponent
    weights = torch.linspace(0.5, 2.0, k, dtype=torch.float64)
    index = torch.arange(k)
    levels = torch.where(index < partial, 0, threshold * weights)
    levels = torch.where(index < rank, levels, torch.inf).expand(2, k)
    wide = x.to(torch.complex128 if dtype.is_complex else torch.float64)
    result = kernels.singular_value_threshold(x, threshold, weights=weights, partial=partial, rank=rank)
    S = torch.linalg.svdvals(wide)
    if rank < k and bool(((S[..., rank - 1 : rank] - S[..., rank : rank + 1]) < 0.05 * S[..., :1]).any()):
        return  # which of two equal values is cut is not defined
    assert close(result, reference(wide, levels), norm(x), ulp=3000)


@pytest.mark.parametrize("ratio", [1e-1, 1e-3, 1e-6])
def test_gram_route_is_accurate_down_to_small_thresholds(matrices, ratio):
    """The documented accuracy: squaring the condition number in double costs nothing in single precision."""
    x = matrices(0, "graded", 12, 20, torch.float32, batch=(8,))
    exact = kernels.singular_value_threshold(x.double(), ratio)
    assert close(kernels.singular_value_threshold(x, ratio), exact, 1.0, ulp=20)


def test_hard_threshold_keeps_or_drops():
    x = torch.tensor([3.0, -1.0, 1.0001, 0.0])
    assert kernels.hard_threshold(x, 1.0).tolist() == [3.0, 0.0, pytest.approx(1.0001), 0.0]


@pytest.mark.parametrize("level", [1.0, 100.0, torch.ones(3)])
@pytest.mark.parametrize("threshold", [kernels.soft_threshold, kernels.hard_threshold])
@pytest.mark.parametrize("imaginary", [None, 0.0, 1.0])
def test_thresholds_keep_nan(threshold, level, imaginary):
    x = torch.tensor([3.0, torch.nan, 0.5])
    x = x if imaginary is None else torch.complex(x, torch.full((3,), imaginary))
    for tensor in (x, x.clone().requires_grad_()):
        assert threshold(tensor, level).isnan().tolist() == [False, True, False]


def test_a_group_that_holds_nan_becomes_nan_and_no_other():
    x = torch.tensor([[torch.nan, 4.0], [0.3, 0.4], [3.0, 4.0]])
    for tensor in (x, x.to(torch.complex64)):
        found = kernels.group_soft_threshold(tensor, 1.0, -1)
        assert found.isnan().tolist() == [[True, True], [False, False], [False, False]]


def test_thresholds_broadcast(matrices):
    x = matrices(0, "gaussian", 4, 5, torch.float64)
    level = torch.tensor([0.1, 0.7], dtype=torch.float64)
    for i in range(2):
        torch.testing.assert_close(
            kernels.singular_value_threshold(x, level)[i],
            kernels.singular_value_threshold(x[i], float(level[i])),
        )
        torch.testing.assert_close(
            kernels.soft_threshold(x, level[:, None, None])[i], kernels.soft_threshold(x[i], float(level[i]))
        )


@EXAMPLES
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from(DTYPES), mu=st.sampled_from((0.1, 1.0, 30.0)))
def test_step_is_one_alternation_of_the_augmented_lagrangian(matrices, seed, dtype, mu):
    D, X, Y = (matrices(seed + i, "gaussian", 5, 7, dtype) for i in range(3))
    B, new_O, new_Y = kernels.lowrank_sparse_step(D, X, Y, mu, 0.3)
    tolerance = 300 * torch.finfo(dtype).eps * (1 + 1 / mu) * (1 + mu)
    torch.testing.assert_close(
        B, kernels.singular_value_threshold(D - X + Y / mu, 1 / mu), rtol=0, atol=tolerance
    )
    torch.testing.assert_close(
        new_O, kernels.soft_threshold(D - B + Y / mu, 0.3 / mu), rtol=0, atol=tolerance
    )
    torch.testing.assert_close(new_Y, Y + mu * (D - B - new_O), rtol=0, atol=tolerance)
    assert float(new_Y.abs().max()) <= 0.3 * (1 + 1e-5)


def test_alternation_recovers_a_low_rank_and_a_sparse_part():
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(40, 2, generator=generator) @ torch.randn(2, 40, generator=generator)
    spikes = 5 * torch.randn(40, 40, generator=generator) * (torch.rand(40, 40, generator=generator) < 0.05)
    D = (low + spikes).double()
    X, Y = torch.zeros_like(D), torch.zeros_like(D)
    mu = 1.25 / float(torch.linalg.matrix_norm(D, 2))
    for _ in range(60):
        B, X, Y = kernels.lowrank_sparse_step(D, X, Y, mu, 40**-0.5)
        mu *= 1.2
    assert norm(B - low) < 1e-4 * norm(low)
    assert norm(X - spikes) < 1e-4 * norm(spikes)


def test_empty_and_expanded_inputs(matrices):
    empty = torch.zeros(0, 3, 4)
    assert kernels.singular_value_threshold(empty, 1.0).shape == (0, 3, 4)
    assert kernels.singular_value_threshold(torch.zeros(2, 0, 4), 1.0).shape == (2, 0, 4)
    assert kernels.lowrank_sparse_step(empty, empty, empty, 1.0, 1.0).dual.shape == (0, 3, 4)
    assert kernels.soft_threshold(empty, 1.0).shape == (0, 3, 4)
    assert kernels.group_soft_threshold(torch.zeros(3, 0), 1.0, -1).shape == (3, 0)
    one = matrices(0, "gaussian", 3, 4, torch.float32, batch=())
    for function in (
        lambda x: kernels.singular_value_threshold(x, 0.3),
        lambda x: kernels.soft_threshold(x, 0.3),
    ):
        torch.testing.assert_close(function(one.expand(5, 3, 4))[2], function(one))
        torch.testing.assert_close(function(one.mT), function(one.mT.contiguous()))


def test_bad_input_says_what_is_wrong():
    x = torch.ones(2, 3, 4)
    with pytest.raises(torch.linalg.LinAlgError, match="matrix holds NaN"):
        kernels.singular_value_threshold(x * torch.nan, 1.0)
    with pytest.raises(ValueError, match=r"threshold.*\(3,\).*\(2,\)"):
        kernels.singular_value_threshold(x, torch.ones(3))
    with pytest.raises(ValueError, match=r"weights.*\(4,\).*\(2, 3\)"):
        kernels.singular_value_threshold(x, 1.0, weights=torch.ones(4))
    with pytest.raises(ValueError, match="negative"):
        kernels.singular_value_threshold(x, 1.0, partial=-1)
    with pytest.raises(ValueError, match="negative"):
        kernels.soft_threshold(x, -1.0)
    with pytest.raises(ValueError, match=r"threshold.*\(5,\).*\(2, 3, 4\)"):
        kernels.hard_threshold(x, torch.ones(5))
    with pytest.raises(ValueError, match="norms"):
        kernels.group_soft_threshold(x, torch.ones(4), -1)
    with pytest.raises(ValueError, match=r"sparse \(2, 3, 3\).*\(2, 3, 4\)"):
        kernels.lowrank_sparse_step(x, x[..., :3], x, 1.0, 1.0)
    with pytest.raises(ValueError, match="mu must be positive"):
        kernels.lowrank_sparse_step(x, x, x, 0.0, 1.0)
    with pytest.raises(ValueError, match="meta"):
        kernels.soft_threshold(x, torch.ones(4, device="meta"))


NEGATIVE = {
    "soft": lambda x, t: kernels.soft_threshold(x, t),
    "hard": lambda x, t: kernels.hard_threshold(x, t),
    "group": lambda x, t: kernels.group_soft_threshold(x, t, -1),
    "singular values": lambda x, t: kernels.singular_value_threshold(x, t),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", [-1e-3, -2.0, torch.nan])
@pytest.mark.parametrize("name", NEGATIVE)
def test_a_negative_threshold_is_an_error_also_in_a_tensor(name, level, dtype):
    x = torch.ones(2, 3, 4, dtype=dtype)
    for threshold in (level, torch.tensor(level), torch.tensor(level).double().requires_grad_()):
        with pytest.raises(ValueError, match="threshold must not be negative"):
            NEGATIVE[name](x, threshold)


def test_one_negative_number_of_many_is_an_error():
    x = torch.ones(2, 3, 4)
    with pytest.raises(ValueError, match=r"threshold must not be negative, got -0\.5"):
        kernels.soft_threshold(x, torch.tensor([0.5, 0.5, -0.5, 0.5]))
    with pytest.raises(ValueError, match=r"threshold must not be negative, got -3\.0"):
        kernels.singular_value_threshold(x, torch.tensor([1.0, -3.0]))
    with pytest.raises(ValueError, match=r"weights must not be negative, got -1\.0"):
        kernels.singular_value_threshold(x, 1.0, weights=torch.tensor([0.0, 1.0, -1.0]))
    for name in ("mu", "lambda_"):
        levels = {"mu": 1.0, "lambda_": 1.0, name: torch.tensor([1.0, 0.0])}
        with pytest.raises(ValueError, match=f"{name} must be positive, got 0"):
            kernels.lowrank_sparse_step(x, x, x, **levels)
    with pytest.raises(ValueError, match="threshold must be real"):
        kernels.soft_threshold(x, torch.tensor(1j))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["number", "tensor", "full"])
def test_gradient_at_the_threshold_is_that_of_the_zero_below(kind, dtype):
    """The same with every release of PyTorch: those of clamp at a tie differ."""
    x = torch.tensor([1.0, -1.0, 0.0, 2.0, -4.0], dtype=dtype, requires_grad=True)
    level = {"number": 1.0, "tensor": torch.tensor(1.0), "full": torch.ones(5)}[kind]
    level = level.to(dtype.to_real()).requires_grad_() if kind != "number" else level
    result = kernels.soft_threshold(x, level)
    assert result.tolist() == [0, 0, 0, 1, -3]
    result.real.sum().backward()
    assert x.grad.tolist() == [0, 0, 0, 1, 1]
    if kind != "number":
        assert level.grad.sum() == 0
    if kind == "full":
        assert level.grad.tolist() == [0, 0, 0, -1, 1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_of_matrix_steps_at_the_threshold(dtype):
    """s = t has slope 1 in singular value thresholding; |R| = lambda / mu has slope 0 in the sparse part."""
    A = torch.diag(torch.tensor([3.0, 1.0, 0.5])).to(dtype).requires_grad_()
    (grad,) = torch.autograd.grad(kernels.singular_value_threshold(A, 1.0).diagonal().real.sum(), A)
    torch.testing.assert_close(grad.diagonal(), torch.tensor([1.0, 1.0, 0.0], dtype=dtype))
    D = torch.zeros(2, 2, dtype=dtype)
    D[0, 0], D[0, 1] = 0.5, -0.5
    D.requires_grad_()
    step = kernels.lowrank_sparse_step(D, torch.zeros_like(D), torch.zeros_like(D), 1.0, 0.5)
    (grad,) = torch.autograd.grad(step.sparse.real.sum(), D)
    assert grad.abs().max() == 0


def test_fused_update_reference_is_the_alternation():
    D, B, Y = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    X, new_Y = sparse_dual_reference(D, B, Y, torch.full((2,), 2.0), torch.full((2,), 0.6))
    torch.testing.assert_close(X, kernels.soft_threshold(D - B + Y / 2, 0.3))
    torch.testing.assert_close(new_Y, Y + 2 * (D - B - X))
