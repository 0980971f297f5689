"""What KroSBLChannelEstimator promises against Sionna's LMMSE on 3GPP's urban microcells."""

import pytest

pytest.importorskip("sionna.phy")

from sionna.phy.ofdm import ResourceGrid

from unfoldkit.sbl import Cell, KroSBLChannelEstimator, covariances
from unfoldkit.sbl.ofdm.comparison import compare, sionna_estimators

ORDERS = ("t-f", "f-t", "t-f-s", "f-t-s")
LEVELS = (-10.0, 0.0, 10.0)


def measured(cell, drops, covariance_drops):
    """Rows of AM-KroSBL and, at each SNR, those of LMMSE."""
    grid = ResourceGrid(14, 624, 30e3, num_tx=4, pilot_pattern="kronecker", pilot_ofdm_symbol_indices=[2, 11])
    covariance = covariances(grid, covariance_drops, 1_000_000, cell)
    estimators = sionna_estimators(grid, covariance, ORDERS) | {
        "AM": KroSBLChannelEstimator(grid, cell.array())
    }
    rows = compare(grid, estimators, LEVELS, drops, 20_000, cell, detected=20)
    return [(rows["AM", level], [rows[f"LMMSE {order}", level] for order in ORDERS]) for level in LEVELS]


@pytest.mark.slow
def test_it_beats_the_best_lmmse_and_knows_its_error():
    for (own, others), lead in zip(measured(Cell(), 200, 600), (2.0, 3.5, 5.0), strict=True):
        assert own["nmse"] < min(row["nmse"] for row in others) - lead
        assert abs(own["calibration"]) < 1
        least = min(row["ber"] for row in others)
        if 1e-4 < least < 0.2 or 1e-4 < own["ber"] < 0.2:
            assert own["ber"] < least


@pytest.mark.slow
@pytest.mark.parametrize("cell", [Cell(speed=20.0), Cell(rows=2, dual=True)], ids=["20 m/s", "dual"])
def test_it_is_no_worse_where_users_move_or_there_are_two_polarisations(cell):
    for own, others in measured(cell, 40, 150):
        assert own["nmse"] <= min(row["nmse"] for row in others)
