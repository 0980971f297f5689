"""Whether a copy of a data set is whole and sound: every picture of every split is read."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .catalogue import find_pairs, layout_of
from .files import Pair, PictureFiles, inverted
from .layouts import NoSplitError
from .reading.levels import PictureWarning
from .reading.picture import read_levels, size_of
from .records import record_of

SPLITS = ("train", "val", "trainval", "test")
SHOWN = 3  # instances of a remark


@dataclass
class Findings:
    """What was seen of one split.

    faults: each ends a run, or makes its numbers wrong.
    remarks: what need not be wrong, with the pictures of which it is said.
    """

    split: str
    published: int | None = None
    pictures: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    shares: list[float] = field(default_factory=list)  # of object pixels
    faults: list[str] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)
    names_of: dict[str, str] = field(default_factory=dict)  # by the hash of a picture's pixels

    def remark(self, said: str, where: str) -> None:
        """Note something that need not be wrong."""
        self.remarks.setdefault(said, []).append(where)

    @property
    def repeats(self) -> int:
        """How many pictures the split holds once more."""
        return len(self.remarks.get(REPEATED, ()))

    def remarks_in_words(self) -> list[str]:
        """One line for each remark, with the first of the pictures."""
        return [
            f"{self.split}: {len(names)} {said}: {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"
            for said, names in self.remarks.items()
        ]


REPEATED = "pictures are repeated"
GREY_MASKS = "masks are not two-level"
OTHER_SIZES = "masks are of another size than their picture"
NARROW_LEVELS = "pictures span under 5 % of their range of levels"


def check(
    name: str,
    root: Path,
    track: Callable[[Iterable[int], str], Iterable[int]] = lambda indices, said: indices,
) -> list[Findings]:
    """Read every picture of every split of a data set; raises where it has none.

    A trainval that holds nothing but what train and val hold is left out: each fault is listed once.
    `track` is given the indices of each split and what is being done with them, to show how far it is.
    """
    layout_of(name, root)
    counts, known = record_of(name).counts, record_of(name).preparation
    found: list[Findings] = []
    seen: set[Pair] = set()
    for split in counts or SPLITS:
        findings = Findings(split, counts.get(split))
        try:
            pairs = find_pairs(name, split, root)
            files = PictureFiles(pairs, known.keep_empty, object_level=known.object_level)
        except (FileNotFoundError, ValueError) as error:
            told = any(str(error) in other.faults for other in found)
            if not counts and (told or isinstance(error, NoSplitError)):  # a folder need not have every split
                continue
            findings.faults.append(str(error))
        else:
            if split == "trainval" and seen.issuperset(pairs):
                continue
            seen.update(pairs)
            for index in track(range(len(files)), f"Reading {split}"):
                look(files, index, findings)
            findings.faults += filter(None, [inverted(files.pairs[0].mask.parent, findings.shares)])
        if findings.published not in (None, findings.pictures):
            findings.faults.append(
                f"{root}: {findings.pictures} pictures in {split}, {findings.published} are published"
            )
        found.append(findings)
    if not found:
        raise ValueError(f"{root}: no split found; expected one of {', '.join(SPLITS)}")
    report_leaks(found)
    return found


def look(files: PictureFiles, index: int, findings: Findings) -> None:
    """Read one picture and its mask, and note what they are like and what is wrong with them."""
    pair = files.pairs[index]
    findings.pictures += 1
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", PictureWarning)
            image = files[index].image
        mask = read_levels(pair.mask)
    except (FileNotFoundError, ValueError) as error:
        findings.faults.append(str(error))
        return
    if said:
        findings.remark(NARROW_LEVELS, pair.name)
    if pair.name in files.suspect:
        findings.faults.append(files.suspect[pair.name])
    findings.sizes[size_of(image)] += 1
    findings.shares.append(files.shares[pair.name])
    findings.levels[described_levels(mask)] += 1
    if len(np.unique(mask)) > 2:
        findings.remark(GREY_MASKS, pair.name)
    if mask.shape != image.shape:
        findings.remark(OTHER_SIZES, f"{pair.name} ({size_of(mask)} for {size_of(image)})")
    first = findings.names_of.setdefault(hashlib.sha256(image.tobytes()).hexdigest(), pair.name)
    if first != pair.name:
        findings.remark(REPEATED, f"{pair.name} is {first}")


def described_levels(mask: np.ndarray) -> str:
    """The levels of a mask: 0, 255, or their number where there are more than five."""
    levels = np.unique(mask).tolist()
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
