"""Angles between grid points: interpolation is exact, atoms move to them, and the decomposition finds them."""

import pytest
import torch

from unfoldkit.sbl import DecomposedSBL, SVDKroSBL
from unfoldkit.sbl.em.off_grid_sbl import interpolate, off_grid_sbl
from unfoldkit.sbl.estimators.decomposed_sbl import rank_one
from unfoldkit.sbl.simulation.metrics import channel_nmse
from unfoldkit.sbl.systems import IRSMIMO, angular_grid, observe, steering_vectors
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
    for factors in ([A, A], [A.expand(0, -1, -1), A]):
        estimate = DecomposedSBL()(factors, torch.zeros(0, 64, dtype=torch.complex128), 0.1)
        assert estimate.mean.shape == (0, 9, 9)


def test_single_precision_is_as_good_as_double_at_any_snr():
    system = IRSMIMO(on_grid=False)
    for snr_db in (20.0, 40.0, 60.0):
        batch = draw_batch(system, (snr_db, snr_db), 20, torch.Generator().manual_seed(1))
        single = [A.to(torch.complex64) for A in batch.factors]
        found = DecomposedSBL()(single, batch.y.to(torch.complex64), batch.noise_variance.float())
        assert found.mean.dtype == torch.complex64
        mean = found.mean.to(torch.complex128)
        error = channel_nmse(system.channel_of(mean, batch.training), batch.cascade)
        assert error.median() < 0.2 * 10 ** (-snr_db / 10)
        assert error.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_the_angles_are_returned_with_their_spread(dtype):
    generator = torch.Generator().manual_seed(1)
    cosines = torch.rand(16, 2, generator=generator).double() * 1.98 - 0.99
    clean = torch.stack(
        [torch.kron(steering_vectors(a, 64), steering_vectors(b, 8)) for a, b in cosines.unbind()]
    )
    noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    y, s2 = observe(clean, noise, 10.0)
    A, B = (steering_vectors(angular_grid(n), m).mT for n, m in ((90, 64), (12, 8)))
    estimate = DecomposedSBL()([A.to(dtype), B.to(dtype)], y.to(dtype), s2)
    for angles, true in zip(estimate.angles, cosines.unbind(-1), strict=True):
        best = torch.stack([field[:, 0].double() for field in angles])
        amplitude, cosine, spread, degrees, degrees_spread = best
        deviation = ((cosine - true) / spread).abs()
        assert deviation.max() < 5
        assert 0.2 < deviation.median() < 1.5
        assert (amplitude > 0.5).all()
        assert ((degrees - true.acos().rad2deg()).abs() <= 5 * degrees_spread + 1e-3).all()


def test_a_grid_coarser_than_the_array_is_refused():
    A, B = steering_vectors(angular_grid(180), 256).mT, steering_vectors(angular_grid(12), 8).mT
    with pytest.raises(ValueError, match=r"factors\[0\] has 256 rows on a grid of 180 points"):
        DecomposedSBL()([A, B], torch.ones(256 * 8, dtype=torch.complex128), 0.1)


def test_angles_that_the_columns_do_not_tell_have_no_finite_spread():
    """Six patterns show a surface of 256 elements on a grid of 18 points: all harmonics alias."""
    batch = draw_batch(IRSMIMO(), (10.0, 10.0), 2, torch.Generator().manual_seed(2))
    surface, mobile, base = DecomposedSBL()(batch.factors, batch.y, batch.noise_variance).angles
    assert surface.cosine_spread.isinf().all()
    assert mobile.cosine_spread.isfinite().all()
    assert base.cosine_spread.isfinite().all()
