"""The coded uplink: what it counts, and that better channel knowledge is worth something."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import math

import pytest
import torch

pytest.importorskip("sionna.phy", reason="needs the extra unfoldkit[sionna]")

from sionna.phy.ofdm import LSChannelEstimator, ResourceGrid

from unfoldkit.sbl.ofdm.link import Uplink, spectral_efficiency

USERS, ANTENNAS, DROPS = 4, 8, 3


def grid(subcarriers=24):
    return ResourceGrid(
        14, subcarriers, 30e3, num_tx=USERS, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2, 11]
    )


def received(link, snr_db, seed=0):
    generators = [torch.Generator().manual_seed(seed + k) for k in range(DROPS)]
    sent = link.send(generators)
    generator = torch.Generator().manual_seed(99)
    shape = (DROPS, 1, ANTENNAS, USERS, 1, 1, 1)
    h = torch.randn(shape, generator=generator, dtype=torch.complex64)
    h = h.expand(*shape[:5], 14, link.grid.fft_size)
    noise = torch.randn(
        DROPS, 1, ANTENNAS, 14, link.grid.fft_size, generator=generator, dtype=torch.complex64
    )
    level = 10 ** (-snr_db / 10)
    return sent, link.receive(sent, h, noise, level), h, level


def scores(link, snr_db, estimator=None):
    sent, y, h, level = received(link, snr_db)
    estimate = (h, torch.zeros(())) if estimator is None else estimator(y, torch.tensor(level))
    return link.scores(sent, y, h, estimate, level)


@pytest.mark.parametrize("bits", [2, 4, 6, 8])
def test_a_clean_channel_that_is_known_has_no_errors(bits):
    found = scores(Uplink(grid(), bits), 50.0)
    for name in ("nmse", "ser", "ber", "bler"):
        assert (found[name] == 0).all()
    assert all(values.shape == (DROPS,) for values in found.values())


def test_a_hopeless_channel_has_all_of_them():
    found = scores(Uplink(grid()), -40.0)
    assert found["ber"].mean() == pytest.approx(0.5, abs=0.05)
    assert (found["bler"] == 1).all()
    assert found["ser"].mean() == pytest.approx(0.75, abs=0.05)


def test_an_estimate_costs_symbols_and_rate():
    link = Uplink(grid())
    known, estimated = scores(link, 0.0), scores(link, 0.0, LSChannelEstimator(link.grid, "lin"))
    assert estimated["ser"].mean() > known["ser"].mean() > 0
    assert estimated["spectral_efficiency"].mean() < known["spectral_efficiency"].mean()
    error = estimated["error_energy"] / estimated["reference_energy"]
    torch.testing.assert_close(error, estimated["nmse"])


def test_the_claimed_error_of_least_squares_at_the_pilots_is_honest():
    """Constant channels and nearest neighbours: every element's error is that of a pilot, N0 / 4 of its energy."""
    link = Uplink(grid())
    found = scores(link, 10.0, LSChannelEstimator(link.grid, "nn"))
    assert found["claimed_error"].mean() == pytest.approx(1, abs=0.2)
    assert found["nmse"].mean() == pytest.approx(0.1 / USERS, rel=0.3)


def test_drops_do_not_depend_on_each_other():
    link = Uplink(grid())
    together = link.send([torch.Generator().manual_seed(k) for k in range(3)])
    alone = link.send([torch.Generator().manual_seed(2)])
    assert torch.equal(together.bits[2:], alone.bits)
    assert torch.equal(together.x[2:], alone.x)


def test_code_words_are_as_long_as_the_code_takes():
    wide = Uplink(grid(624), bits=8, rate=0.9)
    n = wide.grid.num_data_symbols * 8 // wide.words
    assert wide.words > 1
    assert n * wide.words == wide.grid.num_data_symbols * 8
    assert n <= 16_000
    assert int(n * 0.9) <= 8448
    assert Uplink(grid()).words == 1
    assert Uplink(grid()).pilots == 2 * 24


def test_a_rate_without_interference_is_that_of_a_matched_filter():
    h = torch.randn(5, ANTENNAS, 1, generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    found = spectral_efficiency(h, h, torch.zeros(5, ANTENNAS), 0.1)
    torch.testing.assert_close(found, torch.log2(1 + h.abs().square().sum((-2, -1)) / 0.1))


def test_what_makes_no_link_is_named():
    with pytest.raises(ValueError, match="bits must be one of 2, 4, 6, 8, got 3"):
        Uplink(grid(), bits=3)
    with pytest.raises(ValueError, match=r"rate must be at least 0\.2"):
        Uplink(grid(), rate=math.nan)
