"""What to look at: the pictures and videos of files and folders, by the names of their results."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from .files import misleading, outside, visible, without_ending
from .reading.picture import ENDINGS, is_picture, page_names, stem
from .reading.video import VIDEO_ENDINGS, is_video

Item = TypeVar("Item")


def inputs_in(inputs: Iterable[str | Path], out: str | Path | None = None) -> dict[str, Path]:
    """All pictures and videos of files and folders, in order, by name.

    A file's name is its own without ending; below a folder the folders in between are kept, seq1/000, so that
    results can be laid out alike. Hidden files and what is no picture or video are passed over, and so are the
    results of an earlier run where their folder `out` lies below one of the inputs. Linked folders are followed.

    Raises FileNotFoundError where an input is missing, ValueError where a folder holds nothing to look at, or a
    link that leads out of it or to a folder that the link lies in, where it is `out` itself, and where two inputs
    have one name.
    """
    found: dict[str, Path] = {}
    for given in map(Path, inputs):
        if not given.exists():
            raise FileNotFoundError(f"{given}: no such file or folder; expected pictures or videos")
        for name, path in (_below(given, out) if given.is_dir() else {stem(given): given}).items():
            if name in found:
                raise ValueError(f"{path}: its results would overwrite those of {found[name]}")
            found[name] = path
    return found


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of the items, in order and evenly spaced from the first on.

    >>> evenly("abcdef", 3), evenly("ab", 3)
    (['a', 'c', 'e'], ['a', 'b'])
    """
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def require_names_of_pages(inputs: Mapping[str, Path]) -> None:
    """ValueError where a page of one of `inputs` has the name of another: v_0001 of v.tif beside v_0001.png."""
    names_of = cache(page_names)
    for name, path in inputs.items():
        pages = inputs.get(name.rpartition("_")[0])
        if pages is None or is_video(pages) or is_video(path):
            continue
        last = name.rpartition("/")[2]
        if last in names_of(pages) and last in names_of(path):
            raise ValueError(f"{path}: its results would overwrite those of a page of {pages}")


def _below(folder: Path, out: str | Path | None) -> dict[str, Path]:
    """The pictures and videos of a folder and those below, but for `out`."""
    if out is not None and Path(out).resolve() == folder.resolve():
        raise ValueError(f"{folder}: holds the pictures to look at; choose another --out")
    results = None if out is None or not outside(folder, Path(out)) else Path(out)
    found: dict[str, Path] = {}
    for path in visible(folder, folder):
        if not (is_picture(path) or is_video(path) or path.is_dir()):
            continue
        if results is not None and not outside(path, results):
            continue
        if path.is_dir() or outside(path, folder):
            raise ValueError(misleading(path, folder))
        inner = path.relative_to(folder)
        name = without_ending(inner.as_posix()) if is_picture(path) else inner.with_suffix("").as_posix()
        if name in found:
            raise ValueError(f"{path}: its results would overwrite those of {found[name]}")
        found[name] = path
    if not found:
        endings = ", ".join((*ENDINGS, *VIDEO_ENDINGS))
        raise ValueError(f"{folder}: no pictures or videos; expected files ending in {endings}")
    return found
