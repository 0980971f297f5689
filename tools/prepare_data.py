"""Say what a data set should look like and where to get it, and check a copy of it.

    python tools/prepare_data.py
    python tools/prepare_data.py drive
    python tools/prepare_data.py drive --root DIR
    python tools/prepare_data.py folder --root DIR

Without a name it lists the data sets. With --root every picture of every split is read: are there as many as
published, does each have a mask, can both be read, do their sizes agree, does the mask hold an object, and is no
picture of the training also in the test set (the same pixels, whatever its name)? Pictures that a split holds
twice are counted. Exit status 0: all is well;
1: faults were found, and are listed; 2: there is no such data set.
"""

import hashlib
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from unfoldkit.common.console import described_parser, one_line_errors

if TYPE_CHECKING:
    from rich.table import Table

    from unfoldkit.datasets import PictureFiles

SPLITS = ("train", "val", "trainval", "test")


@dataclass
class Findings:
    """What was seen of one split."""

    split: str
    published: int | None = None
    pictures: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    faults: list[str] = field(default_factory=list)
    names_of: dict[str, str] = field(default_factory=dict)  # by the hash of a picture's pixels


def check(name: str, root: Path) -> list[Findings]:
    """Read every picture of every split of a data set; raises where no split can be opened."""
    from rich.progress import track

    from unfoldkit.datasets import PUBLISHED, PictureFiles
    from unfoldkit.datasets.catalogue import find_pairs, layout_of

    layout_of(name, root)
    counts = PUBLISHED[name].counts if name in PUBLISHED else {}
    found = []
    for split in counts or SPLITS:
        findings = Findings(split, counts.get(split))
        try:
            files = PictureFiles(find_pairs(name, split, root))
        except (FileNotFoundError, ValueError) as error:
            if not counts:  # a folder need not have every split
                continue
            findings.faults.append(str(error))
        else:
            for index in track(range(len(files)), f"Reading {split}"):
                look(files, index, findings)
        if findings.published not in (None, findings.pictures):
            findings.faults.append(
                f"{root}: {findings.pictures} pictures in {split}, {findings.published} are published"
            )
        found.append(findings)
    if not found:
        raise ValueError(f"{root}: no split could be read; expected one of {', '.join(SPLITS)}")
    report_leaks(found)
    return found


def look(files: "PictureFiles", index: int, findings: Findings) -> None:
    """Read one picture and its mask, and note what they are like and what is wrong with them."""
    from unfoldkit.datasets.picture import read_levels

    pair = files.pairs[index]
    findings.pictures += 1
    try:
        image = files[index].image
    except (FileNotFoundError, ValueError) as error:
        findings.faults.append(str(error))
        return
    findings.sizes[f"{image.shape[1]}x{image.shape[0]}"] += 1
    findings.levels[described_levels(read_levels(pair.mask))] += 1
    first = findings.names_of.setdefault(hashlib.sha256(image.tobytes()).hexdigest(), pair.name)
    findings.repeats += first != pair.name


def described_levels(mask: object) -> str:
    """The levels of a mask: 0, 255, or their number where there are more than five."""
    import numpy as np

    levels = np.unique(np.asarray(mask)).tolist()
    return ", ".join(map(str, levels)) if len(levels) <= 5 else f"{len(levels)} levels to {levels[-1]}"


def report_leaks(found: list[Findings]) -> None:
    """Note each picture of the test set that is also in another split."""
    of = {findings.split: findings for findings in found}
    for other in found if "test" in of else []:
        test = of["test"]
        if other is test:
            continue
        for key in sorted(test.names_of.keys() & other.names_of.keys(), key=test.names_of.__getitem__):
            test.faults.append(
                f"picture {test.names_of[key]!r} of test is also in {other.split}, as {other.names_of[key]!r}"
            )


def overview() -> "Table":
    from rich.table import Table

    from unfoldkit.datasets import PUBLISHED

    table = Table("name", "data set", "pictures", "protocol")
    for name, data in PUBLISHED.items():
        counts = ", ".join(f"{count} {split}" for split, count in data.counts.items())
        table.add_row(name, data.title, counts, data.protocol)
    return table


def described(name: str) -> str:
    from unfoldkit.datasets import PUBLISHED
    from unfoldkit.datasets.layouts import SPLIT_FOLDERS

    data = PUBLISHED[name]
    counts = ", ".join(f"{count} {split}" for split, count in data.counts.items())
    return (
        f"{data.title}: {counts}\n"
        f"Get it from    {data.source}\n"
        f"Expected       {data.layout.expected if data.layout else ''}\n"
        f"or             {SPLIT_FOLDERS.expected}\n"
        f"Then           python tools/prepare_data.py {name} --root DIR\n"
        f"Train          python tools/train.py --config tools/configs/{name}.yaml --data.root DIR"
    )


def report(found: list[Findings]) -> int:
    """Show the findings as a table and list the faults; returns how many there are."""
    from rich.console import Console
    from rich.table import Table

    table = Table("split", "pictures", "published", "sizes", "mask levels", "repeated", "faults")
    for findings in found:
        table.add_row(
            findings.split,
            str(findings.pictures),
            "" if findings.published is None else str(findings.published),
            counted(findings.sizes),
            counted(findings.levels),
            str(findings.repeats),
            str(len(findings.faults)),
        )
    Console().print(table)
    faults = [fault for findings in found for fault in findings.faults]
    print("\n".join(faults) if faults else "All is well.")
    return len(faults)


def counted(seen: Counter[str]) -> str:
    """The three most frequent, and how many more there are."""
    most = [f"{value} ({count})" for value, count in seen.most_common(3)]
    return "\n".join([*most, *([f"and {len(seen) - 3} more"] if len(seen) > 3 else [])])


def main() -> None:
    from rich.console import Console

    parser = described_parser("prepare_data.py", __doc__)
    parser.add_argument("name", nargs="?", type=str, help="a published data set, or folder")
    parser.add_argument("--root", type=str, help="the copy to check")
    options = parser.parse_args()
    with one_line_errors("prepare_data.py"):
        from unfoldkit.datasets import PUBLISHED

        if options.name is None:
            Console().print(overview())
        elif options.name not in (*PUBLISHED, "folder"):
            raise ValueError(f"name must be one of {', '.join(PUBLISHED)}, folder, got {options.name!r}")
        elif options.root is not None:
            sys.exit(1 if report(check(options.name, Path(options.root))) else 0)
        elif options.name == "folder":
            raise ValueError("--root is missing: expected the folder to check")
        else:
            print(described(options.name))


if __name__ == "__main__":
    main()
