"""Grids and pilots of OFDM channels, which need no Sionna."""

import pytest
import torch

from unfoldkit.sbl.ofdm.grids import ArrayAxes, DelayGrid, pilot_groups, trend


def test_delays_cover_lead_and_span_within_what_pilots_tell_apart():
    tau = DelayGrid(span=6e-6, lead=10, oversampling=1.5).delays(624 * 30e3, 1 / (4 * 30e3))
    assert tau[0] < -0.35e-6
    assert tau[-1] >= 6e-6
    torch.testing.assert_close(tau.diff(), torch.full_like(tau[1:], 1 / (1.5 * 624 * 30e3)))
    short = DelayGrid().delays(48 * 30e3, 1 / (16 * 30e3))
    assert short[-1] - short[0] < 1 / (16 * 30e3)


def test_wrong_grids_are_refused():
    for wrong in ({"span": 0.0}, {"oversampling": -1.0}, {"lead": -1}):
        with pytest.raises(ValueError, match="span and oversampling must be positive"):
            DelayGrid(**wrong)


def test_beams_are_unitary_and_polarisations_stay():
    beams, polarisations = ArrayAxes((4, 2), (True, False)).factors()
    torch.testing.assert_close(beams @ beams.mH, torch.eye(4, dtype=beams.dtype))
    assert torch.equal(polarisations, torch.eye(2, dtype=beams.dtype))


def test_one_pilot_symbol_has_a_level_alone():
    assert trend(torch.arange(3.0), torch.tensor([1.0])).shape == (3, 1)


def pattern(*used):
    """A mask and unit pilots of streams that send at these (symbols, subcarriers) of a 4 x 6 grid."""
    mask = torch.zeros(len(used), 4, 6)
    pilots = torch.zeros(len(used), 4, 6, dtype=torch.complex64)
    for stream, (symbols, subcarriers) in enumerate(used):
        for symbol in symbols:
            pilots[stream, symbol, subcarriers] = 1j
    mask[:] = (pilots.abs().sum(0) > 0).float()
    return mask, torch.stack([p[m.bool()] for p, m in zip(pilots, mask, strict=True)])


def test_shifted_streams_go_together_and_others_apart():
    mask, pilots = pattern(([1, 3], [0, 3]), ([1, 3], [1, 4]), ([1, 3], [2]))
    groups = pilot_groups(mask, pilots, torch.arange(6))
    assert [g.streams for g in groups] == [(0, 1), (2,)]
    assert groups[0].first.tolist() == [0, 1]
    assert groups[0].offsets.tolist() == [0, 3]
    assert groups[0].elements[1].tolist() == [[7, 10], [19, 22]]


def test_pilots_that_do_not_fit_are_refused():
    places = torch.arange(6)
    with pytest.raises(ValueError, match="share a resource element"):
        pilot_groups(*pattern(([1], [0]), ([1], [0])), places)
    mask, pilots = pattern(([1, 3], [0, 3]))
    pilots[0, 0] = 0
    with pytest.raises(ValueError, match="all of some symbols x some subcarriers"):
        pilot_groups(mask, pilots, places)
    mask, pilots = pattern(([1, 3], [0, 3]))
    pilots[0, 0] = 5
    with pytest.raises(ValueError, match="must be a product"):
        pilot_groups(mask, pilots, places)
