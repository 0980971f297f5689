"""Files that are there whole or not at all: here, because both halves of the project stand on this package."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: str | Path, ending: str = "") -> Iterator[Path]:
    """A draft of `path` to write to; at the end of the block it is flushed to the disk and takes the name `path`.

    Whoever opens `path` finds the old file or the new one, whenever the power may fail. The draft, .NAME.part
    beside it, goes where the block raises; that of a process that was killed is overwritten by the next. One
    process at a time may write a file. `ending` is added to the draft's name, for writers that go by it.

    Raises OSError, which names `path`, where the disk is full, the folder read-only or missing; the file that was
    there before stays as it was.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "numbers.json"
    >>> with whole_file(path) as draft:
    ...     written = draft.write_text("[1, 2]")
    >>> path.read_text(), [x.name for x in path.parent.iterdir()]
    ('[1, 2]', ['numbers.json'])
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.part{ending}")
    try:
        yield draft
        _flush(draft)
        draft.replace(path)
        if os.name == "posix":
            _flush(path.parent)  # makes the rename last
    except BaseException as error:
        _discard(draft)
        if isinstance(error, OSError) and error.filename in (None, str(draft), str(path.parent)):
            raise OSError(error.errno, f"cannot be written ({error.strerror})", str(path)) from error
        raise


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write `content` (text in UTF-8) to `path`, whole or not at all; raises what `whole_file` does."""
    with whole_file(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


def write_result(path: str | Path, content: str | bytes) -> None:
    """`write_whole` into a folder that is made where it is missing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def require_distinct(outputs: Mapping[str, str | Path | None]) -> None:
    """ValueError where one of the files that a command is to write, by option, is a folder or that of another.

    >>> require_distinct({"--json": "a.json", "--csv": None, "--curve": "a.csv"})
    >>> require_distinct({"--json": "a.csv", "--csv": "./a.csv"})
    Traceback (most recent call last):
    ValueError: a.csv: --csv would overwrite what --json writes there
    """
    taken: dict[Path, str] = {}
    for option, given in outputs.items():
        if given is None:
            continue
        path = Path(given)
        if path.is_dir():
            raise ValueError(f"{path}: a folder; {option} expects a file to write")
        other = taken.setdefault(path.resolve(), option)
        if other != option:
            raise ValueError(f"{path}: {option} would overwrite what {other} writes there")


def cache_folder() -> Path:
    """Where compiled code is kept: UNFOLDKIT_CACHE, else the user's cache folder."""
    chosen = os.environ.get("UNFOLDKIT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unfoldkit"


def _flush(path: Path) -> None:
    """To the disk, what has been written of a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(draft: Path) -> None:
    try:
        draft.unlink(missing_ok=True)
    except OSError:
        return  # the folder cannot be written, which is told already
