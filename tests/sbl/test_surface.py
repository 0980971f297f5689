"""Phases of a surface, optimised for a channel or for what an estimator makes of few pilots."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from itertools import product

import pytest
import torch

from unfoldkit.sbl import LeastSquares, PCKroSBL
from unfoldkit.sbl.systems import IRSMIMO
from unfoldkit.sbl.systems.pilot_sweep import rates_by_pilots
from unfoldkit.sbl.systems.surface import (
    element_channels,
    optimised_phases,
    quantised,
    rate,
    rate_after_pilots,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.complex128)


def energy(C, phases):
    theta = torch.polar(torch.ones_like(phases), phases)
    return (theta.unsqueeze(-2) @ C).abs().square().sum((-2, -1))


def test_phases_align_a_channel_of_one_number():
    C = random(5, 16, 1)
    assert torch.allclose(energy(C, optimised_phases(C)), C.abs().sum((-2, -1)).square())


@pytest.mark.parametrize("bits", [1, 2])
def test_few_bits_come_close_to_the_best_of_all_patterns(bits):
    C = random(20, 6, 4)
    levels = quantised(torch.arange(2**bits) * 2 * torch.pi / 2**bits, bits).double()
    every = torch.stack([torch.stack(p) for p in product(levels, repeat=6)])
    best = energy(C.unsqueeze(1), every.unsqueeze(0)).amax(-1)
    found = energy(C, optimised_phases(C, bits))
    assert (found <= best * (1 + 1e-9)).all()
    assert (found / best).mean() > 0.95


def test_more_bits_are_worth_more():
    C = random(50, 32, 3)
    one, two, three, all_ = (energy(C, optimised_phases(C, bits)).mean() for bits in (1, 2, 3, None))
    assert one < two < three < all_


def test_element_channels_add_up_to_the_cascade():
    system = IRSMIMO(bs=4, ms=3, irs=(2, 4), grid=5)
    training = system.draw_training(torch.Generator().manual_seed(0))
    x = random(25, 5, 5)
    cascade = torch.einsum("st,sbm->tbm", training.patterns, element_channels(system, x))
    torch.testing.assert_close(cascade, system.channel_of(x, training))


def test_phases_by_a_sparse_estimate_reach_the_rate_with_fewer_pilots():
    system = IRSMIMO(bs=8, ms=2, irs=32, grid=12, pilots=2)
    estimators = {"PC": PCKroSBL(0.8, coupled=(0, 2)), "LS": LeastSquares()}
    rates = rates_by_pilots(system, estimators, [6, 48], 5.0, 200, bits=2, trials=30)
    assert rates["PC"][0] > 0.75 * rates["known"][0]
    assert rates["PC"][0] > rates["LS"][0]
    assert rates["PC"][1] < rates["PC"][0]  # beyond, pilots cost more than they gain
    with pytest.raises(ValueError, match="at least one number"):
        rates_by_pilots(system, estimators, [], 5.0, 200)


def test_a_rate_needs_room_for_its_pilots():
    with pytest.raises(ValueError, match="pilots must lie between 0 and coherence = 10"):
        rate_after_pilots(random(4, 2, 2), random(4, 2, 2), 1.0, 1, 11, 10)
    with pytest.raises(ValueError, match="bits must be at least 1"):
        quantised(torch.zeros(3), 0)
    assert float(rate(torch.eye(2, dtype=torch.complex128), torch.tensor(2.0))) == pytest.approx(2)
