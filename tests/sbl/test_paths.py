"""Sparse Bayesian learning of paths off the grid."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import math

import pytest
import torch

from unfoldkit.sbl.ofdm.axis import Axis
from unfoldkit.sbl.ofdm.paths import (
    Geometry,
    OffGridKroSBL,
    PathPosterior,
    Paths,
    amplitudes,
    displacement,
)

ONE = torch.ones(1)


def line(n, candidates=2):
    phases = 2 * math.pi / n * (torch.arange(n, dtype=torch.float64) - (n - 1) / 2)
    return Axis(phases, torch.ones(n, dtype=torch.float64), torch.arange(candidates * n) / candidates)


AXES = [line(4), line(4), line(40)]
PLACES = torch.tensor([[0.63, 2.27, 7.41], [1.44, 0.38, 11.86], [3.02, 3.7, 12.9]], dtype=torch.float64)


def columns(axes, positions):
    a, b, c = (axis.waves(positions[:, i]) for i, axis in enumerate(axes))
    return torch.einsum("xp,yp,zp->xyzp", a, b, c)


def drawn(count, s2, snapshots=1, seed=0):
    """Noisy sums (count, snapshots, 4, 4, 40) of three paths, and the clean ones."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(count, snapshots, 3, generator=random, dtype=torch.complex128)
    x = x / x.abs() * torch.tensor([1.0, 0.7, 0.5])
    clean = torch.einsum("xyzp,blp->blxyz", columns(AXES, PLACES), x)
    noise = torch.randn(clean.shape, generator=random, dtype=torch.complex128)
    return clean + s2**0.5 * noise, clean


def posterior(y, s2, **options):
    noise = None if s2 is None else torch.full((len(y),), s2, dtype=torch.float64)
    profile = torch.ones(y.shape[1])
    return PathPosterior.of(AXES, OffGridKroSBL(**options)(AXES, y, profile, noise), y)


def test_paths_between_grid_points_are_found_and_seldom_others():
    y, _ = drawn(40, 0.1)
    paths = posterior(y, 0.1).paths
    assert paths.found().min() == 3
    assert (paths.found() > 3).sum() <= 6
    apart = (paths.positions.unsqueeze(2) - PLACES).abs().sum(-1)
    assert apart.amin(1).max() < 0.25
    assert apart.amin(1).mean() < 0.07


@pytest.mark.parametrize("snapshots", [1, 3])
def test_the_error_is_what_the_variance_says(snapshots):
    y, clean = drawn(60, 0.1, snapshots)
    found = posterior(y, 0.1)
    error = (found.mean(AXES) - clean).abs().square().mean()
    assert found.variance(AXES, torch.complex128).mean() / error == pytest.approx(1, abs=0.15)
    # one complex amplitude a snapshot and three real coordinates for each of three paths
    assert error == pytest.approx(0.1 * 3 * (snapshots + 1.5) / 640 / snapshots, rel=0.2)


def test_the_noise_may_be_unknown():
    y, clean = drawn(20, 0.1)
    found = posterior(y, None)
    assert found.paths.noise_variance == pytest.approx(0.1 * torch.ones(20), rel=0.15)
    assert (found.mean(AXES) - clean).abs().square().mean() < 0.1 * 3 * 2.5 / 640 * 1.5


def test_noise_alone_seldom_has_paths():
    y, clean = drawn(100, 1.0)
    assert (posterior(y - clean, 1.0).paths.found() > 0).sum() <= 10
    silent = posterior(torch.zeros_like(y), None)
    assert (silent.mean(AXES) == 0).all()
    assert silent.unexplained().isfinite().all()


def test_what_lies_below_the_threshold_is_unexplained_power():
    """A diffuse part of the channel, too weak in each place to be a path."""
    y = drawn(100, 0.1)[0]
    random = torch.Generator().manual_seed(5)
    diffuse = 0.1 * torch.randn(y.shape, generator=random, dtype=torch.complex128)
    found = posterior(y + diffuse, 0.1)
    assert found.unexplained().mean() == pytest.approx(0.01, rel=0.3)


def test_the_step_is_along_the_gradient_of_the_evidence():
    y, _ = drawn(2, 0.1, snapshots=2)
    shifted = PLACES + 0.05
    paths = Paths(
        shifted.expand(2, 3, 3),
        torch.tensor([1.0, 0.5, 0.3]).double().expand(2, 3),
        torch.tensor([1.0, 0.4]).double().expand(2, 2),
        torch.full((2,), 0.1).double(),
    )
    geometry = Geometry.of(AXES, paths.positions)
    x = amplitudes(geometry, paths, y)
    pulled = torch.einsum("xyzp,blp->blxyz", columns(AXES, shifted), x.mean)
    _, pull = displacement(geometry, paths, x, y - pulled)
    moved = shifted.clone().requires_grad_()
    A = columns(AXES, moved).flatten(0, 2)
    fit = 0.0
    for level in paths.profile[0]:
        K = 0.1 * torch.eye(len(A)) + (A * level * paths.g[0]) @ A.mH
        observed = y[0, 0 if level == 1 else 1].flatten()
        fit = fit - (observed.conj() @ torch.linalg.solve(K, observed)).real
    (gradient,) = torch.autograd.grad(fit, moved)
    torch.testing.assert_close(pull[0], gradient.mT.flatten())


def test_without_noise_the_sum_is_found_exactly():
    _, clean = drawn(10, 0.0)
    for noise in (0.0, None):
        assert (posterior(clean, noise).mean(AXES) - clean).abs().max() < 1e-3


def test_there_are_at_most_as_many_as_allowed():
    y, _ = drawn(5, 1e-3)
    assert (posterior(y, 1e-3, paths=2).paths.found() == 2).all()


def test_a_batch_gives_what_its_members_give():
    y, _ = drawn(6, 0.1, snapshots=2)
    together = posterior(y, 0.1).mean(AXES)
    for member in range(6):
        alone = posterior(y[member : member + 1], 0.1).mean(AXES)
        torch.testing.assert_close(together[member], alone[0], rtol=1e-10, atol=1e-10)
