"""The tables of channel estimation, made of the files that `tools/simulate.py` leaves."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .markdown import Marks, Row, markdown, marks_of, read

FORMS = {"default": "2026-11-26-irs-default.json", "published": "2026-11-26-irs-published.json"}
OFDM = "2026-11-26-ofdm-reconstruction.json"
PILOTS = "2026-11-26-irs-pilots.json"
UMI = {
    "3 km/h": "2026-11-26-ofdm-umi.json",
    "20 m/s": "2026-11-26-ofdm-umi-20-m-s.json",
    "two polarisations": "2026-11-26-ofdm-umi-dual.json",
}
UMI_ON_GPU = "2026-11-26-ofdm-h100.json"
UNFOLDED, OFF_GRID = "2026-11-23-irs-unfolded.json", "2026-11-23-irs-off-grid.json"
UNFOLDED_DEFAULT = "2026-11-26-irs-unfolded.json"
NAMES = {
    "SVD": "SVD-KroSBL",
    "AM": "AM-KroSBL",
    "PC0.8": "PC-KroSBL .8",
    "PC0.5": "PC-KroSBL .5",
    "Decomposed": "DecomposedSBL",
    "Unfolded": "UnfoldedKroSBL, K = 10",
}

Points = dict[tuple[str, float], dict[str, Any]]


def tables(folder: Path) -> dict[Marks, str]:
    """Every table of simulated channels by its marks."""
    forms = {form: points(folder / file) for form, file in FORMS.items()}
    made = {f"irs-{metric}": both(forms, metric) for metric in ("nmse", "pooled_nmse", "outage_above_1")}
    unfolded = points(folder / UNFOLDED)
    made["irs-unfolded"] = f"{with_times(unfolded)}\n\n{gained(unfolded, 'Unfolded', 'PC0.8')}"
    made["irs-unfolded-default"] = side_by_side(points(folder / UNFOLDED_DEFAULT), ("nmse", "pooled_nmse"))
    made["ofdm-reconstruction"] = receivers(points(folder / OFDM))
    made["ofdm-umi"] = against_lmmse({case: read(folder / file) for case, file in UMI.items()})
    made["ofdm-h100"] = at_once(read(folder / UMI_ON_GPU))
    made["irs-pilots"] = rates(read(folder / PILOTS))
    made["irs-off-grid"] = with_times(points(folder / OFF_GRID))
    return {marks_of(name): table for name, table in made.items()}


def points(path: Path) -> Points:
    """The points of a file by estimator and SNR; a trained estimator goes by its class."""
    found = read(path)["points"]
    return {(point["estimator"].partition(":")[0], point["snr_db"]): point for point in found}


def both(forms: dict[str, Points], metric: str) -> str:
    """A metric of every estimator in both forms, the default first."""
    first = forms["default"]
    rows = [
        [named(estimator) if form == "default" else "", form, *cells(found, estimator, metric)]
        for estimator in estimators(first)
        for form, found in forms.items()
    ]
    return markdown(["estimator", "form", *(f"{snr:g} dB" for snr in levels(first))], rows)


def side_by_side(found: Points, metrics: Sequence[str]) -> str:
    """Every metric of every estimator."""
    rows = [
        [named(estimator) if metric == metrics[0] else "", metric, *cells(found, estimator, metric)]
        for estimator in estimators(found)
        for metric in metrics
    ]
    return markdown(["estimator", "", *(f"{snr:g} dB" for snr in levels(found))], rows)


def with_times(found: Points) -> str:
    """The mean NMSE, and the milliseconds that a solve took from the fastest SNR to the slowest."""
    rows: list[Row] = []
    for estimator in estimators(found):
        times = [1000 * found[estimator, snr]["seconds"] for snr in levels(found)]
        rows.append(
            [named(estimator), *cells(found, estimator, "nmse"), f"{min(times):.1f} to {max(times):.1f}"]
        )
    return markdown(["SNR (dB)", *(f"{snr:g}" for snr in levels(found)), "ms a solve"], rows)


def gained(found: Points, ours: str, theirs: str) -> str:
    """How far one estimator's NMSE is below another's at every SNR, and its share of the time, in a sentence."""
    pairs = [(found[ours, snr], found[theirs, snr]) for snr in levels(found)]
    gains = [10 * math.log10(their["nmse"] / our["nmse"]) for our, their in pairs]
    times = sorted(their["seconds"] / our["seconds"] for our, their in pairs)
    return (
        f"{named(ours)}, gains {', '.join(f'{gain:.1f}' for gain in gains)} dB on {named(theirs)} run to "
        f"convergence, {sum(gains) / len(gains):.1f} dB on average, in 1/{times[0]:.0f} to 1/{times[-1]:.0f} of "
        "its time."
    )


def receivers(found: Points) -> str:
    """What a receiver makes of each estimate, an SNR after the other."""
    rows: list[Row] = [
        [
            f"{snr:g}" if estimator == estimators(found)[0] else "",
            estimator,
            f"{point['pooled_nmse']:.3g} ± {point['pooled_nmse_standard_error']:.2g}",
            f"{point['median_nmse']:.3g}",
            *(f"{point[name]:.3g}" for name in ("claimed_error", "ser", "ber")),
            f"{100 * point['bler']:.3g}",
            *(f"{point[name]:.3g}" for name in ("spectral_efficiency", "seconds")),
        ]
        for snr in levels(found)
        for estimator in estimators(found)
        for point in [found[estimator, snr]]
    ]
    header = [
        "SNR (dB)",
        "estimator",
        "pooled NMSE",
        "median NMSE",
        "err_var / error",
        "SER",
        "BER",
        "BLER (%)",
    ]
    return markdown([*header, "bit/s/Hz", "s a drop"], rows)


def against_lmmse(cases: dict[str, dict[str, Any]]) -> str:
    """`tools/benchmark.py ofdm`: every estimator of every case, an SNR after the other."""
    rows: list[Row] = []
    for case, content in cases.items():
        ordered = sorted(content["rows"], key=lambda row: row["snr"])
        for row in ordered:
            first = row is ordered[0]
            rows.append(
                [
                    case if first else "",
                    str(content["drops"]) if first else "",
                    f"{row['snr']:g}",
                    row["estimator"],
                    f"{row['nmse']:.2f}",
                    f"{row['calibration']:+.2f}",
                    f"{row['ber']:.2g}",
                    f"{1000 * row['seconds']:.0f}",
                ]
            )
    header = [
        "users",
        "drops",
        "SNR (dB)",
        "estimator",
        "NMSE (dB)",
        "err_var / error (dB)",
        "BER",
        "ms a user",
    ]
    return markdown(header, rows)


def at_once(content: dict[str, Any]) -> str:
    """`tools/benchmark.py ofdm --device cuda`: many users at once."""
    rows: list[Row] = [
        [row["estimator"], f"{row['snr']:g}", f"{row['nmse']:.2f}", f"{1000 * row['seconds']:.2f}"]
        for row in content["rows"]
    ]
    return markdown(["estimator", "SNR (dB)", "NMSE (dB)", "ms a user"], rows)


def rates(content: dict[str, Any]) -> str:
    """`tools/benchmark.py surface`: an estimator a row, a number of pilots a column."""
    rows: list[Row] = [
        [NAMES.get(name, name), *(f"{rate:.3g}" for rate in row)] for name, row in content["rates"].items()
    ]
    return markdown(["estimator", *(f"{count} pilots" for count in content["pilots"])], rows)


def lead(folder: Path) -> list[float]:
    """By how many dB of NMSE KroSBL off the grid is below the better LMMSE, from the lowest SNR to the highest."""
    rows = read(folder / UMI["3 km/h"])["rows"]
    ours = {row["snr"]: row["nmse"] for row in rows if row["estimator"] == "KroSBL off the grid"}
    return [
        min(row["nmse"] for row in rows if row["snr"] == snr and "LMMSE" in row["estimator"]) - ours[snr]
        for snr in sorted(ours)
    ]


def cells(found: Points, estimator: str, metric: str) -> Row:
    """A metric ± its standard error at every SNR; a share in percent."""
    scale, digits = (100, 1) if metric.startswith("outage") else (1, 4)
    row = []
    for snr in levels(found):
        point = found[estimator, snr]
        value, error = scale * point[metric], scale * point[f"{metric}_standard_error"]
        row.append(f"{value:.{digits}f} ± {error:.{digits}f}")
    return row


def gains(folder: Path) -> tuple[float, float]:
    """How many times lower the default form's mean NMSE is than the published one's: the least and the most."""
    default, published = (points(folder / FORMS[form]) for form in ("default", "published"))
    ratios = [published[key]["nmse"] / point["nmse"] for key, point in default.items()]
    return min(ratios), max(ratios)


def estimators(found: Points) -> list[str]:
    return list(dict.fromkeys(estimator for estimator, _ in found))


def levels(found: Points) -> list[float]:
    return sorted({snr for _, snr in found})


def named(estimator: str) -> str:
    return NAMES.get(estimator, estimator)
