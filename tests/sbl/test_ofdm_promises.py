"""What KroSBLChannelEstimator promises against Sionna's LMMSE and an oracle on 3GPP's urban microcells."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "tools" / "results"
ON, OFF, ORACLE = "AM-KroSBL", "KroSBL off the grid", "oracle"
LEADS = {ON: (2.0, 3.5, 5.0), OFF: (4.0, 5.5, 8.0)}  # dB below LMMSE at -10, 0, 10 dB
LEVELS = (-10.0, 0.0, 10.0)
BEHIND = 6.0  # dB above the oracle at most


def keep_their_promises(rows):
    """rows: {(estimator, SNR): figures}."""
    lmmse = {name for name, _ in rows if name.startswith("LMMSE")}
    for name, leads in LEADS.items():
        for level, lead in zip(LEVELS, leads, strict=True):
            own, others = rows[name, level], [rows[other, level] for other in lmmse]
            assert own["nmse"] < min(row["nmse"] for row in others) - lead
            assert abs(own["calibration"]) < 1
            least = min(row["ber"] for row in others)
            if 1e-4 < least < 0.2 or 1e-4 < own["ber"] < 0.2:
                assert own["ber"] < least
    are_close_to_the_oracle(rows)


def are_close_to_the_oracle(rows):
    for level in LEVELS:
        least = rows[ORACLE, level]["nmse"]
        assert least < rows[OFF, level]["nmse"] < least + BEHIND


def are_no_worse(rows):
    lmmse = {name for name, _ in rows if name.startswith("LMMSE")}
    for name in (ON, OFF):
        for level in LEVELS:
            assert rows[name, level]["nmse"] <= min(rows[other, level]["nmse"] for other in lmmse)
    are_close_to_the_oracle(rows)


def committed(name):
    content = json.loads((RESULTS / name).read_text())
    return content, {(row["estimator"], row["snr"]): row for row in content["rows"]}


def measured(drops, covariance_drops, **cell):
    pytest.importorskip("sionna.phy", reason="needs the extra unfoldkit[sionna]")
    from unfoldkit.sbl import Cell
    from unfoldkit.tools.benchmarks.ofdm import on_cpu

    return on_cpu(drops, 20_000, covariance_drops, 20, LEVELS, Cell(**cell), ("f-t-s", "t-f-s"), 1)


def test_the_committed_comparison_keeps_the_promises():
    content, rows = committed("2026-11-26-ofdm-umi.json")
    assert content["drops"] >= 200
    assert content["covariance_drops"] >= 600
    keep_their_promises(rows)


@pytest.mark.parametrize("case", ["20-m-s", "dual"])
def test_the_committed_smaller_comparisons_are_no_worse(case):
    are_no_worse(committed(f"2026-11-26-ofdm-umi-{case}.json")[1])


@pytest.mark.slow
def test_it_beats_the_best_lmmse_and_knows_its_error():
    keep_their_promises(measured(200, 600))


@pytest.mark.slow
@pytest.mark.parametrize("cell", [{"speed": 20.0}, {"rows": 2, "dual": True}], ids=["20 m/s", "dual"])
def test_it_is_no_worse_where_users_move_or_there_are_two_polarisations(cell):
    are_no_worse(measured(40, 150, **cell))
