"""The tables of compressed networks, one for each data set, from files of `tools/benchmark.py compression`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .markdown import Marks, markdown, marks_of, read

Network = dict[str, Any]
WHOLE, AFTER = "RPCANet++ S3", ", trained on"


def tables(folder: Path) -> dict[Marks, str]:
    found = merged(sorted(folder.glob("*-compression-*.json")))
    return {marks_of(f"compression-{name}"): table(networks) for name, networks in found.items()}


def merged(files: Iterable[str | Path]) -> dict[str, dict[str, Network]]:
    """The networks of every data set by name, what several files know of one together, the later file's first."""
    found: dict[str, dict[str, Network]] = {}
    for file in files:
        content = read(Path(file))
        networks = found.setdefault(content["dataset"], {})
        for row in content["rows"]:
            known = {key: value for key, value in row.items() if value is not None}
            networks[row["network"]] = networks.get(row["network"], {}) | known
    return found


def table(networks: dict[str, Network]) -> str:
    """IoU as compressed and trained on, and times beside those of the whole network."""
    whole = networks[WHOLE]
    header = ["network", "parameters", "IoU", "IoU, trained on"]
    header += ["GPU, ms", "times faster", "CPU, ms", "times faster"]
    rows = []
    for name, row in networks.items():
        if AFTER not in name:
            after = networks.get(trained_on(name), {})
            found = [number(100, row, "iou"), number(100, after, "iou")]
            for key in ("gpu_seconds", "seconds"):
                known = key in row and key in whole
                ratio = f"{whole[key] / row[key]:.2f}" if known else ""
                found += [number(1000, row, key), ratio]
            rows.append([name, f"{row['parameters']:,}", *found])
    return markdown(header, rows)


def trained_on(name: str) -> str:
    """What METHOD SIZE, or the whole network, is called after further training."""
    method, _, size = name.rpartition(" ")
    return f"{method}{AFTER} {size}" if name != WHOLE else f"{name}{AFTER}"


def number(factor: float, row: Network, key: str) -> str:
    return f"{factor * row[key]:.2f}" if key in row else ""
