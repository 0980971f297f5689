"""Systems against their definitions."""

import math

import pytest
import torch

from unfoldkit.kernels import kron_matvec
from unfoldkit.sbl.systems import IRSMIMO, angular_grid, draw_synthetic, observe, steering_vectors


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_steering_vectors():
    cosine = torch.tensor(0.3, dtype=torch.float64)
    expected = [complex(math.cos(math.pi * n * 0.3), math.sin(math.pi * n * 0.3)) / 2 for n in range(4)]
    torch.testing.assert_close(steering_vectors(cosine, 4), torch.tensor(expected, dtype=torch.complex128))
    pair = torch.tensor([0.3, -0.7], dtype=torch.float64)
    planar = torch.kron(steering_vectors(pair[0], 3), steering_vectors(pair[1], 2))
    torch.testing.assert_close(steering_vectors(pair, (3, 2)), planar)
    assert angular_grid((2, 3)).shape == (6, 2)


def test_observe_reaches_the_snr():
    clean = torch.randn(20, 400, generator=generator(), dtype=torch.complex128)
    noise = torch.randn(20, 400, generator=generator(1), dtype=torch.complex128)
    y, s2 = observe(clean, noise, 10.0)
    measured = clean.abs().square().sum() / (y - clean).abs().square().sum()
    assert abs(10 * math.log10(measured) - 10) < 0.2
    torch.testing.assert_close(s2, clean.abs().square().mean(-1) / 10)


def test_synthetic_draw():
    problem = draw_synthetic(generator(), (4, 5, 6), (7, 8, 9), (1, 2, 3))
    assert [int(kept.sum()) for kept in problem.support] == [1, 2, 3]
    assert int(problem.x.count_nonzero()) == 6
    torch.testing.assert_close(problem.clean, kron_matvec(list(problem.factors), problem.x.flatten()))
    again = draw_synthetic(generator(), (4, 5, 6), (7, 8, 9), (1, 2, 3))
    assert torch.equal(again.clean, problem.clean)
    with pytest.raises(ValueError, match="sparsity"):
        draw_synthetic(generator(), (4,), (5,), 6)
    with pytest.raises(ValueError, match="rows, columns and sparsity"):
        draw_synthetic(generator(), (4,), (5, 5), 2)


SYSTEMS = {
    "linear": IRSMIMO(bs=4, ms=3, irs=8, grid=6, spread=2, pilots=2, patterns=3),
    "two paths": IRSMIMO(bs=4, ms=3, irs=8, grid=6, spread=2, pilots=2, patterns=3, paths=2),
    "planar": IRSMIMO(bs=(2, 2), ms=3, irs=(3, 4), grid=4, spread=2, pilots=2, patterns=3),
}


@pytest.fixture(params=SYSTEMS)
def system(request):
    return SYSTEMS[request.param]


def test_the_channel_lies_in_the_dictionaries(system):
    """Noise-free samples are (H_irs kron H_ms kron A_bs) x for the x whose channel is the cascade."""
    random = generator()
    training, channel = system.draw_training(random), system.draw_channel(random)
    H_irs, H_ms, A_bs = system.factors(training)
    cascade = system.cascade(channel, training)
    A_ms = system.dictionary(system.ms)
    rows = torch.einsum("ij,tjk,kl->til", torch.linalg.pinv(A_bs), cascade, torch.linalg.pinv(A_ms.mH))
    x = torch.einsum("nt,tbm->nmb", torch.linalg.pinv(H_irs), rows)
    torch.testing.assert_close(system.channel_of(x, training), cascade)
    torch.testing.assert_close(
        kron_matvec([H_irs, H_ms, A_bs], x.flatten()), system.received(channel, training)
    )


def test_blocks_of_the_cascade(system):
    random = generator()
    training, channel = system.draw_training(random), system.draw_channel(random)
    blocks = [channel.to_bs @ torch.diag(theta) @ channel.to_irs for theta in training.patterns.mT]
    torch.testing.assert_close(system.cascade(channel, training), torch.stack(blocks))


def test_power_of_pilots_patterns_and_hops():
    system, random = IRSMIMO(), generator()
    training = system.draw_training(random)
    torch.testing.assert_close(training.pilots.abs(), torch.full((6, 3), 6**-0.5, dtype=torch.float64))
    torch.testing.assert_close(training.patterns.abs(), torch.full((256, 6), 1 / 16, dtype=torch.float64))
    powers = [system.draw_channel(random).to_bs.abs().square().sum() for _ in range(300)]
    assert 0.8 < torch.stack(powers).mean() / (16 * 256) < 1.2


def test_off_grid_directions_leave_the_grid():
    on, off = IRSMIMO(spread=1), IRSMIMO(spread=1, on_grid=False)
    grid = on.dictionary(16)
    for system, lies_on in ((on, True), (off, False)):
        hop = system.draw_channel(generator()).to_bs
        match = (grid.mH @ hop).norm(dim=-1).amax() / hop.norm()
        assert bool(match > 1 - 1e-9) == lies_on


@pytest.mark.parametrize("setting", [{"grid": 0}, {"spread": 19}, {"paths": 0}, {"pilots": 0}])
def test_bad_sizes_are_named(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        IRSMIMO(**setting)
