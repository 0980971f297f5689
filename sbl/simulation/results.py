"""Tables, curves and distributions of Monte-Carlo results.

What sums up trials and draws figures is handed to `painters`, an executor, so that it can go on beside what this
process does; their libraries are imported where they are used.
"""

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from decimal import Decimal
from itertools import chain
from pathlib import Path, PurePath
from typing import Any

from unfoldkit.common.files import write_whole
from unfoldkit.common.report import fresh_writer

from .options import AXES, Point, varying
from .shards import BOUND, Scores
from .statistics import OUTAGES, summary

Row = dict[str, Any]
Kept = Sequence[tuple[str, Point, Scores]]  # estimator, point and scores of each shard

METRICS = {
    "nmse": "NMSE",
    "pooled_nmse": "pooled NMSE",
    "ser": "symbol error rate",
    "ber": "bit error rate",
    "bler": "block error rate",
    "spectral_efficiency": "spectral efficiency (bit/s/Hz)",
    "claimed_error": "error variance over error",
    "srr": "support recovery rate",
    "seconds": "seconds a solve",
}
MOST_DIGITS = 15  # behind the point of an SNR in dB, so that TensorBoard's 64 bits hold it
OTHER_NMSES = ("median_nmse", *(f"outage_above_{limit:g}" for limit in OUTAGES))


def write_results(out: Path, settings: dict[str, Any], kept: Kept, painters: Executor) -> list[Row]:
    """results.csv and results.json: one row for each estimator and point, see `statistics.summary`."""
    gathered = _gathered(kept)
    summaries = painters.map(summary, gathered.values())
    table = [
        {"estimator": estimator, **dict(point), "trials": len(scores["nmse"]), **summed}
        for ((estimator, point), scores), summed in zip(gathered.items(), summaries, strict=True)
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, dict.fromkeys(key for row in table for key in row))
    writer.writeheader()
    writer.writerows(table)
    write_whole(out / "results.csv", text.getvalue())
    write_whole(out / "results.json", json.dumps({"settings": settings, "points": table}, indent=2))
    return table


def _gathered(kept: Kept) -> dict[tuple[str, tuple[tuple[str, float], ...]], Scores]:
    """The scores of all trials of each estimator at each point."""
    gathered: dict[tuple[str, tuple[tuple[str, float], ...]], Scores] = {}
    for estimator, point, scores in kept:
        trials = gathered.setdefault((estimator, tuple(point.items())), defaultdict(list))
        for metric, values in scores.items():
            trials[metric] += values
    return gathered


def write_curves(out: Path, table: list[Row], kept: Kept, painters: Executor) -> None:
    """One PNG for each metric over the quantity that varies, the distribution of the NMSE, both in TensorBoard."""
    axis = varying(table)
    scale = steps_a_unit([row[axis] for row in table])
    scaled = f" by {AXES[axis].split()[0]} x {scale}" if scale > 1 else ""
    curves: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(table, key=lambda row: row[axis]):
        curves[row["estimator"]].append(row)
    distribution = painters.submit(
        draw, "save_distribution", _distributions(kept, axis), AXES[axis], out / "nmse_distribution.png"
    )
    figures = [distribution]
    with fresh_writer(out / "tensorboard") as writer:
        for metric in (*METRICS, *OTHER_NMSES):
            having = {name: rows for name, rows in curves.items() if metric in rows[0]}
            if having and metric in METRICS:
                figures.append(
                    painters.submit(draw, "save_curves", having, axis, metric, out / f"{metric}.png")
                )
            for estimator, rows in having.items():
                for row in rows:
                    step = round(Decimal(repr(row[axis])) * scale)
                    writer.add_scalar(f"{metric}/{estimator}{scaled}", row[metric], step)
        writer.add_image("figures/nmse_distribution", distribution.result(), dataformats="HWC")
    for figure in figures:
        figure.result()


def steps_a_unit(values: Sequence[float]) -> int:
    """The least power of ten, up to 1e15, that makes `values` whole, as TensorBoard's steps are.

    >>> steps_a_unit([10.0, 20.0]), steps_a_unit([10.0, 10.4, 20.0])
    (1, 10)
    """
    digits = [-int(Decimal(repr(value)).normalize().as_tuple().exponent) for value in values]
    return int(10 ** min(max(0, *digits), MOST_DIGITS))


def draw(name: str, *arguments: Any) -> Any:
    """What the function of this name in `figures` returns."""
    from . import figures

    return getattr(figures, name)(*arguments)


def _distributions(kept: Kept, axis: str) -> dict[float, dict[str, list[float]]]:
    """The NMSEs of all trials by the quantity that varies, then by estimator, as figures call it."""
    found: dict[float, dict[str, list[float]]] = defaultdict(dict)
    called = labels({estimator for estimator, _, _ in kept})
    for (estimator, point), scores in _gathered(kept).items():
        if estimator == BOUND:
            continue
        found[dict(point)[axis]][called[estimator]] = scores["nmse"]
    return dict(sorted(found.items()))


def labels(estimators: Collection[str]) -> dict[str, str]:
    """What figures call each estimator: one of a file by the shortest end of its path that is no other's.

    >>> labels(["AM", "Unfolded:ua/best.safetensors"])
    {'AM': 'AM', 'Unfolded:ua/best.safetensors': 'Unfolded best'}
    >>> list(labels(["Unfolded:ua/best.safetensors", "Unfolded:ub/best.safetensors"]).values())
    ['Unfolded ua/best', 'Unfolded ub/best']
    """
    ends = {estimator: _ends(estimator) for estimator in estimators}
    counts = Counter(chain(*ends.values()))
    return {
        estimator: next((end for end in found if counts[end] == 1), estimator)
        for estimator, found in ends.items()
    }


def _ends(estimator: str) -> list[str]:
    """The estimator's kind with longer and longer ends of the path of its file, if it has one."""
    kind, _, path = estimator.partition(":")
    parts = PurePath(path.removesuffix(".safetensors")).parts
    return [f"{kind} {PurePath(*parts[-k:]).as_posix()}" for k in range(1, len(parts) + 1)] or [kind]
