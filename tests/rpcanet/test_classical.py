"""Classical robust PCA: what each method recovers, whatever else is in its batch."""

import pytest
import torch

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
    low_rank, sparse = mixture(200, 20, rank=1, share=0.05)
    D = low_rank + sparse
    assert error(pssv(D, rank=1).background, low_rank) < 1e-6
    assert error(pcp(D).background, low_rank) > 1e-3


def test_weighted_nuclear_norm_recovers_a_rank_at_which_pcp_does_not():
    low_rank, sparse = mixture(100, 100, rank=20, share=0.1)
    D = low_rank + sparse
    assert error(wnnm(D).background, low_rank) < 1e-6
    assert error(pcp(D).background, low_rank) > 1e-2


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


def test_numbers_must_be_positive():
    with pytest.raises(ValueError, match="must be positive"):
        pcp(torch.ones(4, 4), lambda_=0.0)
    with pytest.raises(ValueError, match="must be positive"):
        pstnn(torch.ones(40, 40), tolerance=0.0)
    with pytest.raises(ValueError, match="must be positive"):
        ipi(torch.ones(40, 40), step=0)


def test_all_methods_have_a_name():
    assert set(METHODS) | {"background_foreground"} <= set(classical.__all__)
