"""The tables of speed, a table for each file that `tools/benchmark.py` left, gathered by what was measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .markdown import Row, markdown, read

Content = dict[str, Any]


def kernels(content: Content) -> list[Row]:
    """Each operation beside the call that it replaces."""
    header = ["operation", "instead of", "ms", "instead, ms", "times faster", "of copy rate", "error"]
    rows = [
        [
            row["case"],
            f"`{row['against']}`",
            f"{1000 * row['seconds']:.3g}",
            f"{1000 * row['obvious_seconds']:.3g}",
            f"{row['ratio']:.3g}",
            "" if row["of_copy"] is None else f"{100 * row['of_copy']:.0f} %",
            f"{row['error']:.1e}",
        ]
        for row in content["rows"]
    ]
    return [header, *rows]


def networks(content: Content) -> list[Row]:
    """Each form of a network beside the same network layer by layer in float32."""
    header = [
        "network",
        "pixels",
        "batch",
        "what",
        "form",
        "ms",
        "host to host, ms",
        "layer by layer, ms",
        "times faster",
    ]
    header += ["MiB", "layer by layer, MiB", "difference"]
    rows = [
        [
            row["network"],
            f"{row['size']}²",
            str(row["batch"]),
            row["what"],
            row["form"],
            f"{1000 * row['seconds']:.4g}",
            number(row.get("latency_seconds"), 1000),
            f"{1000 * row['plain_seconds']:.4g}",
            f"{row['ratio']:.2f}",
            mebibytes(row["bytes"]),
            mebibytes(row["plain_bytes"]),
            f"{row['difference']:.1e}",
        ]
        for row in content["rows"]
        if "failed" not in row
    ]
    return [header, *rows]


def epoch(content: Content) -> list[Row]:
    """What comes before the first epoch of a run, it, later ones, and how long the GPU idles in these."""
    rows = [
        [
            row["network"],
            f"{row['size']}²",
            str(row["batch"]),
            f"`{row['data']}`",
            row["precision"],
            row["caches"],
            f"{row['preparation_seconds']:.3g}",
            f"{row['first_seconds']:.3g}",
            f"{row['seconds']:.3g}",
            "" if row["idle"] is None else f"{100 * row['idle']:.0f} %",
        ]
        for row in content["rows"]
    ]
    header = ["network", "pixels", "batch", "data", "precision", "compiled kernels"]
    header += ["before the first epoch, s", "first epoch, s", "an epoch, s", "GPU idle"]
    return [header, *rows]


def estimators(content: Content) -> list[Row]:
    """Each case with the time or memory that it should keep to."""
    rows = [
        [row["name"], f"{row['value']:.3g} {row['unit']}", f"{row['bound']:g}" if row["bound"] else ""]
        for row in content["rows"]
    ]
    return [["case", "measured", "wanted, at most"], *rows]


def family(content: Content) -> list[Row]:
    """Every network: size, operations, milliseconds a picture, and the IoU that its paper states."""
    sets = list(content["rows"][0]["published_iou"])
    header = ["network", "parameters", "GFLOP, 256²", "CPU, ms", "GPU, ms"]
    header += [f"IoU as published, `{name}`" for name in sets]
    rows = [
        [
            row["network"],
            f"{row['parameters']:,}",
            number(row["flops"], 1e-9),
            number(row["seconds"], 1000),
            number(row["gpu_seconds"], 1000),
            *(number(row["published_iou"][name]) for name in sets),
        ]
        for row in content["rows"]
    ]
    return [header, *rows]


def number(value: float | None, scale: float = 1) -> str:
    return "" if value is None else f"{scale * value:.4g}"


def mebibytes(value: float | None) -> str:
    return "" if value is None else f"{value / 2**20:.0f}"


def classical(content: Content) -> list[Row]:
    """Principal component pursuit beside its decompositions."""
    found = content["result"]
    header = ["case", "iterations", "s", "s of as many SVDs", "error of the background", "of the object"]
    row = [found["case"], str(found["iterations"]), f"{found['seconds']:.3g}"]
    row += [f"{found[key]:.3g}" for key in ("seconds_of_as_many_svds", "low_rank_error", "sparse_error")]
    return [header, row]


SUBJECTS: dict[str, Callable[[Content], list[Row]]] = {
    "kernels": kernels,
    "networks": networks,
    "epoch": epoch,
    "family": family,
    "estimators": estimators,
    "classical": classical,
}


def tables(subject: str, folder: Path) -> str:
    """The tables of all files of a subject, which their names hold: DATE-SUBJECT-*.json."""
    parts = []
    for path in sorted(folder.glob(f"*-{subject}-*.json")):
        content = read(path)
        header, *rows = SUBJECTS[subject](content)
        parts.append(f"{measured_on(content['setting'])}: `{path.name}`\n\n{markdown(header, rows)}")
    return "\n\n".join(parts)


def measured_on(setting: dict[str, Any]) -> str:
    """The device, the version and the date of a measurement."""
    threads = setting["threads"]
    processor = setting.get("processor") or "CPU"
    place = setting.get("gpu") or f"{processor}, {threads} thread{'s' if threads > 1 else ''}"
    return f"{place}, torch {setting['torch']}, {setting['date']}"
