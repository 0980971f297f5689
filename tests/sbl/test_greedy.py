"""Greedy methods that are not told the noise choose the size of their support."""

import pytest
import torch

from unfoldkit.sbl import OMP, KroneckerOMP
from unfoldkit.sbl.estimate import Ended
from unfoldkit.sbl.simulation.metrics import nmse
from unfoldkit.sbl.systems import draw_synthetic, observe

SIZES = {
    "square": ((10, 10), (10, 10), 2),
    "wide": ((10, 12), (15, 16), 2),
    "one factor": ((60,), (60,), 4),
}


def problems(sizes, snr_db, dtype=torch.float64, count=30):
    rows, columns, sparsity = SIZES[sizes]
    drawn = [
        draw_synthetic(torch.Generator().manual_seed(k), rows, columns, sparsity, dtype) for k in range(count)
    ]
    factors = [torch.stack(A) for A in zip(*(p.factors for p in drawn), strict=True)]
    clean, noise = torch.stack([p.clean for p in drawn]), torch.stack([p.noise for p in drawn])
    y, s2 = observe(clean, noise, snr_db)
    return factors, torch.stack([p.x for p in drawn]), y, s2


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64])
@pytest.mark.parametrize("method", [OMP(), KroneckerOMP()], ids=["OMP", "KOMP"])
@pytest.mark.parametrize("sizes", SIZES)
def test_unknown_noise_is_no_worse_than_known_noise(sizes, method, dtype):
    factors, x, y, s2 = problems(sizes, 20.0, dtype)
    known, unknown = method(factors, y, s2), method(factors, y)
    dims = len(factors)
    assert nmse(unknown.mean, x, dims).median() <= 1.2 * nmse(known.mean, x, dims).median()
    assert nmse(unknown.mean, x, dims).max() < 3
    assert 0.85 < (unknown.noise_variance / s2).median() < 1.15
    assert (unknown.mean != 0).flatten(1).sum(-1).max() <= y.shape[-1] // 2


def test_without_noise_it_finds_the_support_without_being_told():
    factors, x, y, _ = problems("wide", 300.0)
    estimate = KroneckerOMP()(factors, y)
    assert nmse(estimate.mean, x, 2).median() < 1e-20
    assert (estimate.ended == Ended.SETTLED).all()


def test_noise_alone_has_hardly_any_support():
    factors, _, y, _ = problems("square", 20.0)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype)
    for method in (OMP(), KroneckerOMP()):
        assert (method(factors, noise).mean != 0).flatten(1).sum(-1).double().mean() < 1


def test_a_sparsity_is_taken_whole_and_said_to_be_all_it_may():
    factors, _, y, _ = problems("square", 20.0)
    estimate = OMP(sparsity=5)(factors, y)
    assert (estimate.iterations == 5).all()
    assert (estimate.ended == Ended.ITERATIONS).all()


@pytest.mark.parametrize("method", [OMP(1), KroneckerOMP(1)], ids=["OMP", "KOMP"])
def test_columns_that_are_zero_to_rounding_are_not_chosen(method):
    """The first is rounding, as pilots leave of a direction in which they cancel, and points where y does."""
    A = torch.tensor([[1e-17, 3.0, 1.0], [1e-17, -1.0, 1.1]], dtype=torch.float64)
    y = torch.tensor([0.0, 0, 2, 0, 0, 2], dtype=torch.float64)
    found = method([A, torch.eye(3, dtype=torch.float64)], y, 1e-6).mean
    assert found.nonzero().tolist() == [[2, 2]]
    torch.testing.assert_close(found[2, 2].item(), 4.2 / 2.21)
