"""Singular value thresholding by products of matrices alone, as large matrices on a GPU have it."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import pytest
import torch

from unfoldkit.rpcanet.classical import ipi, shrinkage
from unfoldkit.rpcanet.inference import data_set
from unfoldkit.rpcanet.inference.options import Evaluation

MATRICES = {
    "gaussian": lambda x: x,
    "graded": lambda x: x * torch.logspace(0, -12, x.shape[-1], dtype=x.dtype),
    "low rank": lambda x: x[..., :5] @ x[..., :5].mT[..., : x.shape[-1]],
    "background": lambda x: x + 500 * x[..., :1].abs() @ x[..., :1, :].abs(),
    "zero": torch.zeros_like,
}


@pytest.mark.parametrize("level", [1e-7, 1e-4, 0.03, 0.5, 2.0])
@pytest.mark.parametrize("kind", MATRICES)
def test_products_threshold_singular_values(kind, level):
    random = torch.Generator().manual_seed(0)
    A = MATRICES[kind](torch.randn(2, 60, 40, generator=random, dtype=torch.float64))
    U, S, Vh = torch.linalg.svd(A, full_matrices=False)
    t = level * S[:, :1].clamp_min(1e-3) * torch.tensor([[1.0], [0.4]])
    expected = (U * (S - t).clamp_min(0)[:, None]) @ Vh
    found = A - A @ shrinkage.clip(A.mT @ A, t[:, 0])
    assert float((found - expected).norm()) <= shrinkage.ACCURACY * float(A.norm())


def test_a_value_at_the_threshold_is_thresholded_as_well():
    """Where the sign function does not settle."""
    S = torch.tensor([300.0, 1 + 1e-13, 1.0, 1 - 1e-9, 1 - 1e-6, 0.5, 0.0], dtype=torch.float64)
    Q, _ = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    A = Q * S
    found = A - A @ shrinkage.clip((A.mT @ A)[None], torch.ones(1, dtype=torch.float64))[0]
    assert float((found - Q * (S - 1).clamp_min(0)).norm()) <= shrinkage.ACCURACY * 300


def picture(size=48):
    x = torch.linspace(0, 9, size, dtype=torch.float64)
    noise = torch.randn(size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = x.sin()[:, None] * (0.7 * x).cos() + 0.02 * noise
    levels[30:33, 20:23] += 1.5
    return levels


def test_a_picture_is_split_by_products_as_by_eigenvalues(monkeypatch):
    expected = ipi(picture(), patch=16, step=4)
    monkeypatch.setattr(shrinkage, "_products_pay", lambda A: True)
    found = ipi(picture(), patch=16, step=4)
    assert found.iterations == expected.iterations
    torch.testing.assert_close(found.object, expected.object, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.background, expected.background, rtol=0, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_splits_pictures_as_a_cpu_does():
    pictures = torch.stack([picture(96), picture(96).T.flip(0)])
    expected, found = ipi(pictures, patch=20, step=6), ipi(pictures.cuda(), patch=20, step=6)
    assert expected.iterations.tolist() == found.iterations.tolist()
    torch.testing.assert_close(found.object.cpu(), expected.object, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("device", "method", "size", "expected"),
    [("cpu", "ipi", 256, 4), ("cuda", None, 256, 4), ("cuda", "ipi", 0, 4), ("cuda", "ipi", 256, 64)],
)
def test_a_gpu_takes_as_many_pictures_as_it_holds(monkeypatch, device, method, size, expected):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (64 * 256**2 * data_set.BYTES_A_PIXEL, 0))
    options = Evaluation("sirst", method=method, device=device)
    assert data_set.together(options, size) == expected
