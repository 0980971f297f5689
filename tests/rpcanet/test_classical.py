"""Classical robust PCA: what each method recovers, whatever else is in its batch."""

import pytest
import torch

from unfoldkit import kernels
from unfoldkit.rpcanet import classical
from unfoldkit.rpcanet.classical import METHODS, ipi, pcp, pssv, pstnn, wnnm
from unfoldkit.rpcanet.classical.pstnn import corner_prior


def mixture(m, n, rank, share, seed=0, dtype=torch.float64):
    """A random low-rank matrix, and a sparse one of entries of any sign from -10 to 10."""
    random = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(*shape, generator=random, dtype=dtype) for shape in ((m, rank), (rank, n)))
    values = 20 * torch.rand(m, n, generator=random, dtype=dtype) - 10
    return left @ right, torch.where(torch.rand(m, n, generator=random, dtype=dtype) < share, values, 0)


def scene(seed, size=200):
    """Six waves with a little noise, a bright square on them, and the square's pixels."""
    random = torch.Generator().manual_seed(seed)
    x = torch.linspace(0, 20, size)
    waves = (
        torch.outer((w * x + p).sin(), (v * x + q).cos())
        for w, p, v, q in torch.rand(6, 4, generator=random).mul(torch.tensor([1.0, 6.3, 1.0, 6.3])).tolist()
    )
    picture = 0.4 + 0.1 * sum(waves) + 0.005 * torch.randn(size, size, generator=random)
    row, column = torch.randint(10, size - 14, (2,), generator=random).tolist()
    target = torch.zeros(size, size, dtype=torch.bool)
    target[row : row + 3, column : column + 3] = True
    return picture + 0.4 * target, target


def error(found, truth):
    return ((found - truth).norm() / truth.norm()).item()


def test_pcp_recovers_rank_5_and_5_percent_sparse_of_500_by_500():
    low_rank, sparse = mixture(500, 500, rank=5, share=0.05)
    found = pcp(low_rank + sparse)
    assert error(found.background, low_rank) < 1e-6
    assert error(found.object, sparse) < 1e-6
    assert found.iterations < 40


@pytest.mark.parametrize("shape", [(60, 90), (90, 60)])
@pytest.mark.parametrize(
    ("method", "tolerance"), [(pcp, 1e-5), (lambda D: pssv(D, rank=2), 1e-5), (wnnm, 1e-5)]
)
def test_every_penalty_recovers_in_single_precision(method, tolerance, shape):
    low_rank, sparse = mixture(*shape, rank=2, share=0.05, dtype=torch.float32)
    assert error(method(low_rank + sparse).background, low_rank) < tolerance


def test_partial_sum_recovers_from_few_samples_where_pcp_does_not():
    low_rank, sparse = mixture(200, 12, rank=1, share=0.05)
    D = low_rank + sparse
    assert error(pssv(D, rank=1).background, low_rank) < 1e-6
    assert error(pcp(D).background, low_rank) > 1e-3


def test_weighted_nuclear_norm_recovers_a_rank_at_which_pcp_does_not():
    low_rank, sparse = mixture(100, 100, rank=20, share=0.1)
    D = low_rank + sparse
    assert error(wnnm(D).background, low_rank) < 1e-6
    assert error(pcp(D).background, low_rank) > 1e-2


def minimiser(D, weight, iterations=8000):
    """By ADMM of a fixed penalty, until neither residual moves: a convex problem has one minimum."""
    mu = D.numel() / (4 * D.abs().sum())
    sparse = dual = before = torch.zeros_like(D)
    for _ in range(iterations):
        low_rank = kernels.singular_value_threshold(D - sparse + dual, 1 / mu)
        sparse = kernels.soft_threshold(D - low_rank + dual, float(weight / mu))
        dual = dual + D - low_rank - sparse
        if max((D - low_rank - sparse).norm(), (sparse - before).norm()) < 1e-8 * D.norm():
            break
        before = sparse
    return sparse


def gross(m, n, rank, share, seed=1):
    """Low rank, and Gaussian errors of deviation 10."""
    random = torch.Generator().manual_seed(seed)
    left, right, values = (torch.randn(*s, generator=random).double() for s in ((m, rank), (rank, n), (m, n)))
    return left @ right, 10 * torch.where(torch.rand(m, n, generator=random) < share, values, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(
    "case", [(60, 60, 3, 0.05), (60, 60, 12, 0.2), (40, 40, 15, 0.4), (200, 30, 5, 0.05), (30, 80, 3, 0.1)]
)
def test_pcp_ends_at_the_minimiser(case, dtype):
    low_rank, sparse = gross(*case)
    D, weight = low_rank + sparse, max(case[:2]) ** -0.5
    best, found = minimiser(D, weight), pcp(D.to(dtype))

    def objective(sparse):
        return torch.linalg.svdvals(D - sparse).sum() + weight * sparse.abs().sum()

    assert objective(found.object.double()) / objective(best) - 1 < 5e-6
    assert error(found.object, best) < 1e-3
    assert error(found.object, sparse) < 1.02 * error(best, sparse) + 2e-6
    assert found.iterations < 120
    assert found.residual <= (1e-7 if dtype == torch.float64 else 1e-6)


def test_pcp_of_a_tall_matrix_is_as_near_the_truth_as_the_minimiser():
    """1000x60, rank 10, 5 %: the minimiser is at 1.4e-3."""
    random = torch.Generator().manual_seed(1)
    low_rank = torch.randn(1000, 10, generator=random, dtype=torch.float64) @ torch.randn(
        10, 60, generator=random, dtype=torch.float64
    )
    there = torch.rand(1000, 60, generator=random) < 0.05
    sparse = there * torch.randn(1000, 60, generator=random, dtype=torch.float64) * 10
    found = pcp(low_rank + sparse)
    assert error(found.object, sparse) < 1.6e-3
    assert found.iterations < 64  # twice those that it took to stop short


@pytest.mark.parametrize("name", ["pcp", "pssv", "ipi"])
@pytest.mark.parametrize("scale", [2.0**-100, 1e-20, 1e-6, 1e6, 1e20, 2.0**120])
def test_the_scale_of_a_picture_changes_nothing_else(name, scale):
    picture, _ = scene(0, size=64)
    expected, found = METHODS[name](picture), METHODS[name](picture * scale)
    assert torch.equal(found.iterations, expected.iterations)
    rtol = 1e-7 if scale in (2.0**-100, 2.0**120) else 1e-4  # others are rounded before they come here
    assert error(found.object / scale, expected.object) < rtol
    assert error(found.background / scale, expected.background) < rtol


def test_the_scale_of_wnnm_is_that_of_its_strength():
    """By C / scale: 2^-66 of it here, a power of two, where a single precision square would overflow."""
    picture, _ = scene(0, size=64)
    expected, found = wnnm(picture), wnnm(picture * 2.0**66, strength=2**0.5 * 64 * 2.0**66)
    assert error(found.object * 2.0**-66, expected.object) < 1e-6
    assert wnnm(picture * 1e20).background.isfinite().all()


MASKED = {
    "pcp": pcp,
    "pssv": lambda D, **options: pssv(D, rank=2, **options),
    "wnnm": wnnm,
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(100, 80), (80, 100)])
@pytest.mark.parametrize("name", MASKED)
def test_missing_entries_are_completed(name, shape, dtype):
    low_rank, sparse = mixture(*shape, rank=2, share=0.05, dtype=dtype)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(5)) > 0.2
    for missing in (torch.nan, 1e9):
        found = MASKED[name](torch.where(mask, low_rank + sparse, missing), mask=mask)
        assert error(found.background, low_rank) < 1e-5
        assert error(found.object, torch.where(mask, sparse, 0)) < 1e-5
        assert found.object[~mask].abs().max() == 0
    whole = MASKED[name](low_rank + sparse, mask=torch.ones(shape, dtype=torch.bool))
    torch.testing.assert_close(whole.object, MASKED[name](low_rank + sparse).object)


def test_missing_pixels_of_a_batch_of_pictures():
    pictures, targets = (torch.stack(x) for x in zip(*(scene(seed, 100) for seed in range(2)), strict=True))
    mask = (torch.rand(100, 100, generator=torch.Generator().manual_seed(5)) > 0.1) | targets.any(0)
    found = ipi(torch.where(mask, pictures, torch.nan), mask=mask)
    assert torch.equal(found.probability > 0.5, targets)
    assert (found.background - pictures)[:, ~mask].abs().max() < 0.1
    assert found.object[:, ~mask].abs().max() == 0


@pytest.mark.parametrize("name", ["pcp", "pssv", "wnnm", "ipi"])
def test_a_mask_that_does_not_fit_or_hides_nothing_of_a_nan(name):
    picture = scene(0, size=64)[0]
    for mask in (torch.ones(64, 63, dtype=torch.bool), torch.ones(64, 64), torch.ones(2, 64, 64).bool()):
        with pytest.raises(ValueError, match=r"mask must be booleans that broadcast to .* \(64, 64\)"):
            METHODS[name](picture, mask=mask)
    picture[3, 4] = torch.nan
    mask = torch.ones(64, 64, dtype=torch.bool)
    with pytest.raises(torch.linalg.LinAlgError, match="where mask is true"):
        METHODS[name](picture, mask=mask)
    assert METHODS[name](picture, mask=~picture.isnan()).background.isfinite().all()
    nothing = METHODS[name](picture, mask=~mask)
    assert nothing.object.abs().max() == 0
    assert nothing.background.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_a_picture_is_split_alike_alone_and_in_a_batch(name):
    batch = torch.stack([scene(seed, size=100)[0] for seed in range(3)])[:, None]
    together = METHODS[name](batch)
    assert together.background.shape == together.object.shape == batch.shape
    assert together.iterations.shape == together.residual.shape == (3, 1)
    for index in range(3):
        alone = METHODS[name](batch[index, 0])
        assert alone.iterations == together.iterations[index, 0]
        torch.testing.assert_close(alone.object, together.object[index, 0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", [ipi, pstnn])
def test_patch_models_find_a_small_target(method):
    for seed in range(4):
        picture, target = scene(seed)
        found = method(picture)
        assert torch.equal(found.probability > 0.5, target)
        assert (found.background - picture)[~target].abs().max() < 0.1


@pytest.mark.parametrize("name", METHODS)
def test_nothing_to_split(name):
    for picture in (torch.zeros(60, 70), torch.full((60, 70), 0.4)):
        found = METHODS[name](picture)
        torch.testing.assert_close(found.background, picture, atol=1e-4, rtol=1e-4)
        assert found.object.abs().max() < 1e-4


@pytest.mark.parametrize("method", [ipi, pstnn])
def test_pictures_smaller_than_a_patch(method):
    assert method(scene(0, size=30)[0]).object.shape == (30, 30)


def test_corners_have_the_largest_prior():
    picture = torch.zeros(1, 40, 40)
    picture[:, 20:, 20:] = 100.0
    prior = corner_prior(picture)[0]
    assert prior[20, 20] > 0.5
    assert prior[30, 20] < 0.05
    assert prior[5, 5] == 0


@pytest.mark.parametrize("name", METHODS)
def test_bad_input(name):
    with pytest.raises(ValueError, match="must be real"):
        METHODS[name](torch.zeros(60, 60, dtype=torch.complex64))
    with pytest.raises(ValueError, match="must be real"):
        METHODS[name](torch.zeros(60))
    with pytest.raises(torch.linalg.LinAlgError):
        METHODS[name](torch.full((60, 60), torch.nan))
    for half in (torch.float16, torch.bfloat16):
        with pytest.raises(ValueError, match="single or double precision"):
            METHODS[name](torch.rand(60, 60).to(half))


def test_numbers_must_be_positive():
    with pytest.raises(ValueError, match="must be positive"):
        pcp(torch.ones(4, 4), lambda_=0.0)
    with pytest.raises(ValueError, match="must be positive"):
        pstnn(torch.ones(40, 40), tolerance=0.0)
    with pytest.raises(ValueError, match="must be positive"):
        ipi(torch.ones(40, 40), step=0)


def test_all_methods_have_a_name():
    assert set(METHODS) | {"background_foreground"} <= set(classical.__all__)
