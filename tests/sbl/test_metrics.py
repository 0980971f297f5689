"""Metrics against their definitions."""

import torch

from unfoldkit.sbl.simulation.metrics import channel_nmse, nmse, support_recovery_rate, symbol_error_rate


def random_channels(seed, *shape):
    return torch.randn(shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def test_nmse():
    x = random_channels(0, 3, 4, 5)
    torch.testing.assert_close(nmse(1.1 * x, x, dims=2), torch.full((3,), 0.01, dtype=torch.float64))


def test_channel_nmse_averages_the_patterns():
    H = random_channels(0, 2, 4, 3)
    estimate = torch.stack([H[0], torch.zeros_like(H[1])])
    torch.testing.assert_close(channel_nmse(estimate, H), torch.tensor(0.5, dtype=torch.float64))


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
