"""Estimators with a fixed number of iterations are differentiable, and torch.func sees through them."""

import pytest
import torch
from torch.utils._pytree import tree_leaves

from unfoldkit.sbl import KSBL, PCSBL, AMKroSBL, ClassicSBL, PCKroSBL, SVDKroSBL

FIXED = {"max_iterations": 3, "tolerance": None}
METHODS = {
    "SVD": SVDKroSBL(**FIXED),
    "AM": AMKroSBL(**FIXED, sweeps=3),
    "KSBL": KSBL(**FIXED),
    "PC": PCKroSBL(0.4, **FIXED, sweeps=2),
    "AM as published": AMKroSBL(**FIXED, sweeps=3, as_published=True),
    "PC as published": PCKroSBL(0.4, **FIXED, sweeps=2, as_published=True),
    "classic": ClassicSBL(**FIXED),
    "PCSBL": PCSBL(**FIXED),
}


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def inputs(dtype, batch=()):
    generator = torch.Generator().manual_seed(3)
    A, B = (torch.randn(*batch, m, n, generator=generator, dtype=dtype) for m, n in ((2, 3), (3, 2)))
    y = torch.randn(*batch, 6, generator=generator, dtype=dtype)
    s2 = torch.rand(batch, generator=generator, dtype=dtype.to_real()) + 0.2
    return A, B, y, s2


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients(method, dtype):
    def estimate(A, B, y, s2):
        result = method([A, B], y, s2)
        return torch.view_as_real(result.mean) if dtype.is_complex else result.mean, result.variance

    arguments = tuple(t.requires_grad_() for t in inputs(dtype))
    assert torch.autograd.gradcheck(estimate, arguments, atol=1e-6)


def test_gradients_of_an_unknown_noise_variance(method):
    A, B, y, _ = inputs(torch.float64)
    assert torch.autograd.gradcheck(
        lambda y: method([A, B], y).noise_variance, (y.requires_grad_(),), atol=1e-6
    )


def test_gradients_with_pruned_entries_are_finite():
    A = torch.eye(4, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    method = SVDKroSBL(max_iterations=20, tolerance=None, pruning=1e-1)
    estimate = method([A, A], torch.outer(y, y).flatten(), 1e-3)
    assert (estimate.hyperparameters[0] == 0).sum() == 3
    estimate.mean.sum().backward()
    assert torch.isfinite(y.grad).all()
    assert torch.isfinite(A.grad).all()


def test_vmap_is_the_batch(method):
    A, B, y, s2 = inputs(torch.complex128, (4,))
    mapped = torch.func.vmap(lambda *args: method(list(args[:2]), *args[2:]).mean)(A, B, y, s2)
    torch.testing.assert_close(mapped, method([A, B], y, s2).mean)


def test_per_sample_gradients(method):
    A, B, y, s2 = inputs(torch.float64, (3,))

    def power(y, A, B, s2):
        return method([A, B], y, s2).mean.square().sum()

    mapped = torch.func.vmap(torch.func.grad(power))(y, A, B, s2)
    for member in range(3):
        single = y[member].clone().requires_grad_()
        power(single, A[member], B[member], s2[member]).backward()
        torch.testing.assert_close(mapped[member], single.grad)


def test_fixed_iterations_give_the_adaptive_result(method):
    A, B, y, s2 = inputs(torch.float64)
    import dataclasses

    adaptive = dataclasses.replace(method, tolerance=0.0)
    torch.testing.assert_close(adaptive([A, B], y, s2).mean, method([A, B], y, s2).mean, rtol=1e-3, atol=1e-4)


def test_an_untracked_estimate_can_enter_a_loss(method):
    """The loop runs in inference mode then; none of its tensors leaves it."""
    A, B, y, s2 = inputs(torch.float64)
    estimate = method([A, B], y, s2, history=True)
    fields = [x for x in tree_leaves(vars(estimate)) if isinstance(x, torch.Tensor)]
    assert not any(x.is_inference() for x in fields)
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    (weight * estimate.mean.abs().square().sum() + (weight * estimate.hyperparameters[0]).sum()).backward()
    assert weight.grad is not None
