"""Angles between grid points: interpolation is exact, atoms move to them, and the decomposition finds them."""

import pytest
import torch

from unfoldkit.sbl import DecomposedSBL, SVDKroSBL
from unfoldkit.sbl.em.off_grid_sbl import interpolate, off_grid_sbl
from unfoldkit.sbl.estimators.decomposed_sbl import rank_one
from unfoldkit.sbl.simulation.metrics import channel_nmse
from unfoldkit.sbl.systems import IRSMIMO, angular_grid, steering_vectors
from unfoldkit.sbl.training.task import draw_batch


def cosine(position, grid):
    return torch.as_tensor(-1 + 2 * position / grid, dtype=torch.float64)


@pytest.mark.parametrize("conjugate", [False, True])
@pytest.mark.parametrize("antennas", [3, 8, 10])
def test_interpolation_is_exact_between_grid_points(antennas, conjugate):
    A = steering_vectors(angular_grid(11), antennas).mT
    expected = steering_vectors(cosine(4.37, 11), antennas)
    if conjugate:
        A, expected = A.conj().resolve_conj(), expected.conj()
    between = interpolate(A.unsqueeze(0))
    position = torch.tensor([[4.37]], dtype=torch.float64)
    found = between.columns(between.waves(position))[0, :, 0]
    torch.testing.assert_close(found, expected.resolve_conj(), rtol=1e-9, atol=1e-9)
    step = torch.tensor([[1e-6]], dtype=torch.float64)
    ahead = between.columns(between.waves(position + step)) - between.columns(between.waves(position))
    torch.testing.assert_close(between.slopes(between.waves(position)), ahead / 1e-6, rtol=1e-4, atol=1e-5)


def test_atoms_on_the_grid_have_the_same_sum():
    A = steering_vectors(angular_grid(9), 8).mT.unsqueeze(0)
    y = steering_vectors(cosine(2.3, 9), 8).unsqueeze(0)
    found = off_grid_sbl(A, y, torch.tensor([1e-6], dtype=torch.float64))
    torch.testing.assert_close((A @ found.on_grid.unsqueeze(-1)).squeeze(-1), y, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("position", [2.1, 2.3, 5.0, 8.9])
def test_an_atom_moves_to_the_angle(position):
    A = steering_vectors(angular_grid(9), 8).mT.unsqueeze(0)
    y = 3j * steering_vectors(cosine(position, 9), 8).unsqueeze(0)
    found = off_grid_sbl(A, y, torch.tensor([1e-4], dtype=torch.float64), iterations=30)
    best = found.amplitudes.abs().argmax()
    assert found.positions[0, best].item() == pytest.approx(position, abs=0.02)


def test_rank_one_recovers_a_kronecker_product():
    generator = torch.Generator().manual_seed(0)
    u, v, w = (torch.randn(2, n, generator=generator, dtype=torch.complex128) for n in (3, 4, 5))
    y = torch.einsum("bi,bj,bk->bijk", u, v, w)
    scale, (a, b, c) = rank_one(y, 3)
    found = scale[:, None, None, None] * torch.einsum("bi,bj,bk->bijk", a, b, c)
    torch.testing.assert_close(found, y)


def test_off_grid_channels_are_estimated_better_than_on_the_grid():
    system = IRSMIMO(on_grid=False)
    batch = draw_batch(system, (16.0, 16.0), 40, torch.Generator().manual_seed(1))

    def median_nmse(estimator):
        mean = estimator(batch.factors, batch.y, batch.noise_variance).mean
        return channel_nmse(system.channel_of(mean, batch.training), batch.cascade).median()

    assert median_nmse(DecomposedSBL()) < 0.3 * median_nmse(SVDKroSBL(pruning=0.0, max_iterations=40))


def test_unknown_noise_is_what_the_rank_one_part_leaves():
    batch = draw_batch(IRSMIMO(), (10.0, 10.0), 8, torch.Generator().manual_seed(2))
    known = DecomposedSBL()(batch.factors, batch.y, batch.noise_variance)
    unknown = DecomposedSBL()(batch.factors, batch.y)
    torch.testing.assert_close(unknown.mean, known.mean, rtol=0.2, atol=0.2 * float(known.mean.abs().max()))


def test_batch_members_do_not_mix():
    batch = draw_batch(IRSMIMO(), (10.0, 10.0), 3, torch.Generator().manual_seed(2))
    together = DecomposedSBL()(batch.factors, batch.y, batch.noise_variance).mean
    alone = DecomposedSBL()(
        [A if A.ndim == 2 else A[1] for A in batch.factors], batch.y[1], batch.noise_variance[1]
    ).mean
    torch.testing.assert_close(together[1], alone, rtol=1e-6, atol=1e-6 * float(alone.abs().max()))


def test_real_factors_are_refused():
    with pytest.raises(ValueError, match="complex"):
        DecomposedSBL()([torch.eye(2), torch.eye(2)], torch.ones(4), 0.1)


def test_an_empty_batch_gives_an_empty_estimate():
    A = steering_vectors(angular_grid(9), 8).mT
    estimate = DecomposedSBL()([A, A], torch.zeros(0, 64, dtype=torch.complex128), 0.1)
    assert estimate.mean.shape == (0, 9, 9)
