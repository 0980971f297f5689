"""Forward mode: tangents of every operation, alone, nested and batched, by torch.func and by dual numbers."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.func import hessian, jacfwd, jacrev, jvp, vmap

from unfoldkit import kernels

WINDOW = torch.ones(1, 1, 3, 3, dtype=torch.float64) / 9
FACTOR = torch.tensor([[1.0, 0.5], [-0.3, 0.2]], dtype=torch.float64)


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def reconstruction(A):
    U, S, Vh = kernels.svd(A)
    return ((U * S[..., None, :]) @ Vh).abs() + S[..., None, :] + U.abs().sum(-1, keepdim=True)


def hermitian_parts(A):
    values, Q = kernels.eigh(A.mH @ A)
    return Q.abs() + values[..., None, :]


def triplet(A):
    sigma, u, v = kernels.leading_singular_triplet(A)
    return sigma[..., None] * v.abs() + u.abs().sum(-1, keepdim=True)


# Functions of (4, 3); each returns one real tensor and depends on no phase.
COMPLEX_USES = {
    "svd": reconstruction,
    "svdvals": kernels.svdvals,
    "eigh": hermitian_parts,
    "leading_singular_triplet": triplet,
    "singular_value_threshold": lambda A: kernels.singular_value_threshold(A, 0.7).abs(),
    "level of it": lambda A: kernels.singular_value_threshold(A, A.abs().mean()).abs(),
    "lowrank_sparse_step": lambda A: sum(
        x.abs() for x in kernels.lowrank_sparse_step(A, A / 3, A / 5, A.abs().mean(), 0.4)
    ),
    "soft_threshold": lambda A: kernels.soft_threshold(A, 0.5).abs(),
    "level of soft_threshold": lambda A: kernels.soft_threshold(A, A.abs().mean()).abs(),
    "hard_threshold": lambda A: kernels.hard_threshold(A, 0.5).abs(),
    "group_soft_threshold": lambda A: kernels.group_soft_threshold(A, 0.5, -1).abs(),
    "mode_product": lambda A: kernels.mode_product(A, A[:3], -1).abs(),
    "kron_matvec": lambda A: kernels.kron_matvec([A, A[:2, :2]], A.flatten()[:6]).abs(),
}
REAL_USES = {
    "nonnegative_least_squares": lambda A: kernels.nonnegative_least_squares(A.mT @ A, A[0]),
    "same_conv2d": lambda A: kernels.same_conv2d(A[None, None], WINDOW, relu=True),
    "large_kernel_conv2d": lambda A: kernels.large_kernel_conv2d(A[None, None], WINDOW),
    "its spectrum": lambda A: kernels.large_kernel_conv2d(
        A[None, None], WINDOW, spectrum=kernels.conv_spectrum(WINDOW)
    ),
    "batch_norm": lambda A: kernels.batch_norm(A, None, None),
}
USES = {**COMPLEX_USES, **REAL_USES}


@pytest.mark.parametrize("name", USES)
def test_jvp_is_the_jacobian_times_the_tangent(name):
    use, A, V = USES[name], draw(4, 3), draw(4, 3, seed=1)
    expected = (jacrev(use)(A) * V).sum((-2, -1))
    torch.testing.assert_close(jvp(use, (A,), (V,))[1], expected)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(use(forward_ad.make_dual(A, V))).tangent
    torch.testing.assert_close(tangent, expected)


@pytest.mark.parametrize("name", COMPLEX_USES)
def test_complex_tangents_are_those_of_differences(name):
    A = draw(4, 3, dtype=torch.complex128).requires_grad_()
    assert gradcheck(COMPLEX_USES[name], A, check_forward_ad=True, check_backward_ad=False)


@pytest.mark.parametrize(
    "name", sorted(USES.keys() - {"batch_norm"})
)  # F.batch_norm itself fails twice forward
def test_every_order_of_two_derivatives_agrees(name):
    def loss(A):
        return USES[name](A).square().sum()

    A = draw(4, 3)
    expected = jacrev(jacrev(loss))(A)
    torch.testing.assert_close(hessian(loss)(A), expected)
    torch.testing.assert_close(jacfwd(jacfwd(loss))(A), expected)
    torch.testing.assert_close(jacrev(jacfwd(loss))(A), expected)


@pytest.mark.parametrize("name", COMPLEX_USES)
def test_tangents_of_a_batch_are_those_of_its_items(name):
    use = COMPLEX_USES[name]
    batch, tangents = draw(3, 4, 3, dtype=torch.complex128), draw(3, 4, 3, dtype=torch.complex128, seed=1)
    found = vmap(lambda A, V: jvp(use, (A,), (V,))[1])(batch, tangents)
    for index in range(3):
        torch.testing.assert_close(found[index], jvp(use, (batch[index],), (tangents[index],))[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(3, 3), (5, 3), (2, 3, 5)])
def test_tangents_of_the_factors_obey_the_product_rule(shape, dtype):
    A, V = draw(*shape, dtype=dtype), draw(*shape, dtype=dtype, seed=1)
    (U, S, Vh), (dU, dS, dVh) = jvp(lambda A: tuple(kernels.svd(A)), (A,), (V,))
    S, dS = S[..., None, :], dS[..., None, :]
    torch.testing.assert_close((dU * S) @ Vh + (U * dS) @ Vh + (U * S) @ dVh, V)
    for turn in (U.mH @ dU, Vh @ dVh.mH):
        torch.testing.assert_close(turn, -turn.mH)


@pytest.mark.parametrize("values", [[2.0, 2.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
def test_tangents_are_finite_where_values_coincide_or_vanish(values):
    A = torch.diag(torch.tensor(values, dtype=torch.float64))
    V = draw(3, 3)
    for use in (kernels.svd, kernels.svdvals, kernels.eigh, kernels.leading_singular_triplet):
        tangents = jvp(lambda A, use=use: torch.cat([x.flatten() for x in (use(A),)[0]]), (A,), (V,))[1]
        assert bool(tangents.isfinite().all())


def test_forward_over_reverse_with_dual_numbers():
    A = draw(3, 2).requires_grad_()
    assert gradgradcheck(lambda A: kernels.singular_value_threshold(A, 0.5), A, check_fwd_over_rev=True)
    assert gradgradcheck(kernels.svdvals, A, check_fwd_over_rev=True)


@pytest.mark.parametrize("name", ["svdvals", "singular_value_threshold", "lowrank_sparse_step"])
def test_single_precision_keeps_its_dtype(name):
    use, A, V = USES[name], draw(4, 3, dtype=torch.float32), draw(4, 3, dtype=torch.float32, seed=1)
    tangent = jvp(use, (A,), (V,))[1]
    assert tangent.dtype == torch.float32
    torch.testing.assert_close(
        tangent.double(), jvp(use, (A.double(),), (V.double(),))[1], rtol=1e-4, atol=1e-4
    )


def test_an_empty_batch_has_empty_tangents():
    empty = torch.zeros(0, 4, 3)
    for use in (kernels.svdvals, lambda A: kernels.singular_value_threshold(A, 0.5)):
        assert jvp(use, (empty,), (empty,))[1].shape == use(empty).shape
