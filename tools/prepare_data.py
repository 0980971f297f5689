"""Say what a data set should look like and where to get it, and check a copy of it.

    python tools/prepare_data.py
    python tools/prepare_data.py drive
    python tools/prepare_data.py drive --root DIR
    python tools/prepare_data.py folder --root DIR

Without a name it lists the data sets. With --root every picture of every split is read: are there as many as
published, does each have a mask, can both be read, do their proportions agree, does the mask hold an object, is
it neither transparent, full, of classes nor inverted, and is no picture of the training also in the test set
(the same pixels, whatever its name)? Pictures that a split repeats or that span few of their levels, and masks
of more than two levels or of another size are named, too. Exit status 0: all is well; 1: faults were found, and
are listed; 2: there is no such data set.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from unfoldkit.common.console import described_parser, one_line_errors

if TYPE_CHECKING:
    from rich.table import Table

    from unfoldkit.datasets.check import Findings

OBJECT = {"maximum": "at the mask's maximum", "half": "above half of it", "any": "above 0"}


def overview() -> "Table":
    from rich.table import Table

    from unfoldkit.datasets.records import RECORDS

    table = Table("name", "data set", "pictures", "protocol")
    for name, data in RECORDS.items():
        counts = ", ".join(f"{count} {split}" for split, count in data.counts.items())
        table.add_row(name, data.title, counts, data.protocol)
    return table


def described(name: str) -> str:
    from unfoldkit.datasets import record_of
    from unfoldkit.datasets.layouts import SPLIT_FOLDERS

    data = record_of(name)
    known, recipe = data.preparation, data.recipe
    counts = ", ".join(f"{count} {split}" for split, count in data.counts.items())
    size = f"resized to {known.size}x{known.size}" if known.size else "at their own size"
    windows = f"windows of {recipe.crop}x{recipe.crop}" if recipe.crop else "whole pictures"
    return (
        f"{data.title}{counts and ': '}{counts}\n"
        f"Get it from    {data.source}\n"
        f"Expected       {data.layout.expected if data.layout else 'any layout'}\n"
        f"or             {SPLIT_FOLDERS.expected}\n"
        f"Read           {size}, grey as {known.grey} makes it, (level - {known.mean:g}) / {known.std:g}; "
        f"object {OBJECT[known.object_level]}\n"
        f"Scored         by the protocol {data.protocol}\n"
        f"Trained        on {windows}, {'with' if recipe.augment else 'without'} flips, {recipe.epochs} epochs, "
        f"batch {recipe.batch_size}, rate {recipe.learning_rate:g}\n"
        f"Then           python tools/prepare_data.py {name} --root DIR\n"
        f"Train          python tools/train.py --config tools/configs/{name}.yaml --data.root DIR"
    )


def report(found: "list[Findings]") -> int:
    """Show the findings as a table and list remarks and faults; returns how many faults there are."""
    from rich.console import Console
    from rich.table import Table

    table = Table("split", "pictures", "published", "sizes", "mask levels", "repeated", "faults")
    for findings in found:
        published = "" if findings.published is None else str(findings.published)
        seen = counted(findings.sizes), counted(findings.levels)
        numbers = str(findings.repeats), str(len(findings.faults))
        table.add_row(findings.split, str(findings.pictures), published, *seen, *numbers)
    Console().print(table)
    print(*(remark for findings in found for remark in findings.remarks_in_words()), sep="\n")
    faults = [fault for findings in found for fault in findings.faults]
    print(*(faults or ["All is well."]), sep="\n")
    return len(faults)


def counted(seen: Counter[str]) -> str:
    """The three most frequent, and how many more there are."""
    more = [f"and {len(seen) - 3} more"] if len(seen) > 3 else []
    return "\n".join([f"{value} ({count})" for value, count in seen.most_common(3)] + more)


def main() -> None:
    from rich.console import Console
    from rich.progress import track

    parser = described_parser("prepare_data.py", __doc__)
    parser.add_argument("name", nargs="?", type=str, help="a data set of the list, or folder")
    parser.add_argument("--root", type=str, help="the copy to check")
    options = parser.parse_args()
    with one_line_errors("prepare_data.py"):
        from unfoldkit.datasets.check import check
        from unfoldkit.datasets.records import RECORDS

        if options.name is None:
            Console().print(overview())
        elif options.name not in (*RECORDS, "folder"):
            raise ValueError(f"name must be one of {', '.join(RECORDS)}, folder, got {options.name!r}")
        elif options.root is not None:
            sys.exit(1 if report(check(options.name, Path(options.root), track)) else 0)
        elif options.name == "folder":
            raise ValueError("--root is missing: expected the folder to check")
        else:
            print(described(options.name))


if __name__ == "__main__":
    main()
