"""C sources of this project, compiled for the processor at hand when they are first needed.

As Triton and `torch.compile` do, this calls the C compiler of the machine. Where there is none, or one that is
too old or has no OpenMP (as Apple's clang), whoever asked goes the way of PyTorch, which computes the same, more
slowly, and one line says so. Compiled libraries are kept in the user's cache folder, a file for each source, its
definitions, compiler and processor.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from unfoldkit.common.files import cache_folder

FLAGS = (
    *("-std=gnu11", "-shared", "-fPIC", "-O3", "-march=native", "-fopenmp"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)

LONGEST = 300  # seconds


@lru_cache
def load(source: Path, **definitions: str) -> ctypes.CDLL | None:
    """The library that `source`, a C file, compiles to with these preprocessor definitions.

    None where the machine has no C compiler (`CC`, cc, gcc or clang), or that does not take the source. Either is
    logged as a warning of one line, once for each compiler. Its threads, by OpenMP, are as many as PyTorch's.
    Calls into it release the interpreter's lock.

    >>> load(Path("missing.c"))
    Traceback (most recent call last):
    FileNotFoundError: ...
    """
    headers = {*Path(__file__).parent.glob("*.h"), *source.parent.glob("*.h")}
    text = b"".join(part.read_bytes() for part in (source, *sorted(headers)))
    compiler = _compiler()
    if compiler is None:
        _warn("no C compiler (CC, cc, gcc or clang)", source.stem)
        return None
    command = [compiler, *FLAGS, f"-I{Path(__file__).parent}"]
    command += [f"-D{name}={value}" for name, value in definitions.items()]
    key = hashlib.sha256(text + repr((command, _stamp(compiler), _processor())).encode()).hexdigest()
    name = f"{source.stem.strip('_')}-{key[:20]}.so"
    try:
        return _library(source, command, name)
    except (OSError, subprocess.SubprocessError) as error:
        _warn(f"the C compiler {compiler} fails", source.stem, _first_error(error))
        return None


_warned: set[str] = set()  # what has been said in this process


def _warn(cause: str, source: str, reason: str = "") -> None:
    """One line for a cause; that other sources meet it too is no news."""
    level = logging.DEBUG if cause in _warned else logging.WARNING
    _warned.add(cause)
    logging.getLogger(__name__).log(
        level, "%s: %s goes through PyTorch, more slowly%s", cause, source, f" ({reason})" if reason else ""
    )


def _first_error(error: Exception) -> str:
    """The line of a compiler's complaint that says what is wrong, else the error's own."""
    said = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    lines = (said.strip() or str(error)).splitlines()
    return next((line for line in lines if "error" in line.lower()), lines[0]).strip()


def _library(source: Path, command: list[str], name: str) -> ctypes.CDLL:
    """The library in the cache folder, or in a folder of its own where that cannot be written."""
    library = cache_folder() / name
    if library.exists():
        with suppress(OSError):  # damaged: compiled anew
            return ctypes.CDLL(str(library))
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(".part", name, library.parent)
    except OSError:
        library = Path(tempfile.mkdtemp()) / name
        handle, draft = tempfile.mkstemp(".part", name, library.parent)
    os.close(handle)
    try:
        run = [*command, str(source), "-o", draft, "-lm"]
        subprocess.run(run, check=True, capture_output=True, text=True, timeout=LONGEST)
        loaded = ctypes.CDLL(draft)  # before it is kept: what cannot be loaded is not
        os.replace(draft, library)  # several processes may come here at once: the last one's stays
        return loaded
    finally:
        Path(draft).unlink(missing_ok=True)


def _compiler() -> str | None:
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _stamp(compiler: str) -> tuple[str, int, int]:
    """Which compiler it is, without running it."""
    path = Path(compiler).resolve()
    return str(path), path.stat().st_size, path.stat().st_mtime_ns


def _processor() -> str:
    """What `-march=native` goes by."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kinds = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(kinds)}))
