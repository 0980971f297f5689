"""Files that are there whole or not at all: here, because both halves of the project stand on this package."""

import os
from pathlib import Path


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write `content` (text in UTF-8) to `path`, so that whoever opens it finds the old file or the new one.

    A draft beside it, .NAME.part, is written, flushed to the disk and renamed, whenever the power may fail; the
    draft of a process that was killed is overwritten by the next. One process at a time may write a file.

    Raises OSError, which names `path`, where the disk is full, the folder read-only or missing; the file that was
    there before stays as it was.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "numbers.json"
    >>> write_whole(path, "[1, 2]")
    >>> path.read_text(), [x.name for x in path.parent.iterdir()]
    ('[1, 2]', ['numbers.json'])
    """
    path = Path(path)
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        _discard(draft)
        raise OSError(error.errno, f"cannot be written ({error.strerror})", str(path)) from error


def _flush_folder(folder: Path) -> None:
    """Make a rename last; some file systems cannot, and need not be asked to."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _discard(draft: Path) -> None:
    try:
        draft.unlink(missing_ok=True)
    except OSError:
        return  # the folder cannot be written, which is told already
