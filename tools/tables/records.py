"""Tables of single measurements, kept as text in tools/results/records, and the README's lines of results."""

from pathlib import Path
from typing import Any

from .channels import gains, lead
from .markdown import Marks, markdown, marks_of, read

SPEED = ("networks-xeon-inference", "networks-epyc-inference")


def tables(folder: Path) -> dict[Marks, str]:
    """The table of every record by its marks, which its file's name holds: DATE-NAME.json."""
    found = sorted((folder / "records").glob("*.json"))
    return {marks_of(path.stem[11:]): table(read(path)) for path in found}


def table(record: dict[str, Any]) -> str:
    return markdown(record["columns"], record["rows"])


def highlights(folder: Path) -> dict[Marks, str]:
    """The README's lines of results, from the files that the tables are made of."""
    official = record_rows(folder, "official-weights")
    published = next(row for row in official if row[:2] == ["RPCANet", "SIRST"])
    ratios = [
        row["ratio"]
        for subject in SPEED
        for path in folder.glob(f"*-{subject}.json")
        for row in read(path)["rows"]
        if (row["network"], row["form"]) == ("S6", "float32")
    ]
    least, most = gains(folder)
    picture = next(
        row
        for row in read(max(folder.glob("*-networks-h100-inference.json")))["rows"]
        if (row["network"], row["batch"]) == ("S3", 1)
    )
    below = ", ".join(f"{gain:.1f}" for gain in lead(folder))
    lines = [
        f"Official RPCANet weights give their published numbers, {published[2]} IoU on SIRST:\n"
        "  [official weights](docs/results.md#official-weights-evaluated).",
        f"RPCANet++ S6 runs {min(ratios):.0f} to {max(ratios):.0f} times faster than layer by layer, 256x256 on a "
        "CPU:\n  [speed](docs/results.md#networks-against-layer-by-layer).",
        f"The IRS uplink's mean NMSE is {least:.0f} to {most:.0f} times below that of the published "
        "estimators:\n  [both forms](docs/results.md#default-and-published-form).",
        f"On an H100 RPCANet++ S3 takes {1000 * picture['seconds']:.2f} ms for a picture of 256x256, layer by "
        f"layer {1000 * picture['plain_seconds']:.1f}:\n"
        "  [speed](docs/results.md#networks-against-layer-by-layer).",
        f"On 3GPP's urban microcells KroSBL's NMSE is {below} dB below LMMSE's at -10, 0, 10 dB:\n"
        "  [OFDM](docs/results.md#ofdm-uplinks-against-sionnas-lmmse).",
    ]
    return {marks_of("highlights"): "\n".join(f"- {line}" for line in lines)}


def record_rows(folder: Path, name: str) -> list[list[str]]:
    [path] = (folder / "records").glob(f"*-{name}.json")
    rows: list[list[str]] = read(path)["rows"]
    return rows
