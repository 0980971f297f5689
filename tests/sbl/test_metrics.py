"""Metrics against their definitions."""

import pytest
import torch

from unfoldkit.sbl.simulation.experiments import IRSExperiment
from unfoldkit.sbl.simulation.metrics import channel_nmse, nmse, support_recovery_rate, symbol_error_rate
from unfoldkit.sbl.systems.irs_mimo import IRSMIMO


def random_channels(seed, *shape):
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def test_nmse():
    x = random_channels(0, 3, 4, 5)
    torch.testing.assert_close(nmse(1.1 * x, x, dims=2), torch.full((3,), 0.01, dtype=torch.float64))


def test_channel_nmse_averages_the_patterns():
    H = random_channels(0, 2, 4, 3)
    estimate = torch.stack([H[0], torch.zeros_like(H[1])])
    torch.testing.assert_close(channel_nmse(estimate, H), torch.tensor(0.5, dtype=torch.float64))


def with_a_dark_pattern(seed):
    """The channels of two patterns, and of a third whose paths cancel, as near as rounding comes."""
    H = random_channels(seed, 2, 4, 3)
    return H, torch.cat([H, 1e-16 * random_channels(seed + 1, 1, 4, 3)])


def test_patterns_whose_paths_cancel_are_left_out():
    """Their channels are rounding alone, and any error is 1e30 of their energy."""
    H, dark = with_a_dark_pattern(0)
    H_found, dark_found = H + 0.1, (dark + 0.1).requires_grad_()
    error = channel_nmse(dark_found, dark)
    torch.testing.assert_close(error, channel_nmse(H_found, H))
    torch.testing.assert_close(symbol_error_rate(dark_found, dark, 4.0), symbol_error_rate(H_found, H, 4.0))
    gradient = torch.autograd.grad(error, dark_found)[0].abs().amax((-2, -1))
    assert gradient.isfinite().all()
    assert gradient[2] == 0


@pytest.mark.parametrize("fresh_training", [False, True])
def test_channels_of_small_systems_are_scored_by_what_arrives(fresh_training):
    """Directions on the grid let paths cancel under some patterns of these draws."""
    experiment = IRSExperiment(IRSMIMO(8, 4, 16, grid=8, spread=1, pilots=6), fresh_training)
    for scores in experiment.run("OMP", [10.0, 20.0], seed=0, trials=range(50)):
        assert max(scores["nmse"]) < 0.01
        assert max(scores["ser"]) < 0.01


def test_trials_in_which_nothing_is_received_are_refused():
    experiment = IRSExperiment(
        IRSMIMO(4, 2, irs=4, grid=4, spread=1, pilots=2, patterns=3), fresh_training=True
    )
    experiment.drawn(0, range(10))
    with pytest.raises(ValueError, match="trial 10: nothing is received, its paths cancel under all pilots"):
        experiment.drawn(0, range(5, 20))


def test_support_recovery_rate():
    truth = torch.tensor([[1.0, 0, 2, 0], [0, 0, 0, 0]])
    estimate = torch.tensor([[1.0, 5e-4, 0.0, 0.5], [0, 0, 0, 0]])
    torch.testing.assert_close(support_recovery_rate(estimate, truth), torch.tensor([1 / 3, 1.0]))


def test_symbol_error_rate_is_that_of_a_simulated_link():
    H, error = random_channels(0, 1, 4, 3), random_channels(1, 1, 4, 3)
    estimate, symbols, snr_db = H + 0.6 * error, 100_000, 4.0
    generator = torch.Generator().manual_seed(2)
    bits = torch.randint(0, 4, (symbols,), generator=generator)
    alphabet = torch.polar(
        torch.ones(4, dtype=torch.float64), torch.pi * (torch.arange(4).double() + 0.5) / 2
    )
    U, _, Vh = torch.linalg.svd(estimate[0])
    u, v = U[:, 0], Vh[0].conj()
    sent = alphabet[bits] * (u.conj() @ H[0] @ v)
    variance = sent.abs().square().mean() / 10 ** (snr_db / 10)
    received = sent + variance.sqrt() * torch.randn(symbols, dtype=torch.complex128, generator=generator)
    distance = (received.unsqueeze(-1) - (u.conj() @ estimate[0] @ v) * alphabet).abs()
    simulated = (distance.argmin(-1) != bits).double().mean()
    exact = symbol_error_rate(estimate, H, snr_db)
    spread = (exact * (1 - exact) / symbols).sqrt()
    assert 0.01 < exact < 0.9
    assert (simulated - exact).abs() < 4 * spread
