"""C sources of this project, compiled for the processor at hand when they are first needed.

As Triton and `torch.compile` do, this calls the C compiler of the machine. Where there is none, whoever asked goes
the way of PyTorch, which computes the same, more slowly. Compiled libraries are kept in the user's cache folder,
a file for each source, its definitions, compiler and processor.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

FLAGS = (
    *("-std=gnu11", "-shared", "-fPIC", "-O3", "-march=native", "-fopenmp"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)


@lru_cache
def load(source: Path, **definitions: str) -> ctypes.CDLL | None:
    """The library that `source`, a C file, compiles to with these preprocessor definitions.

    None where the machine has no C compiler (`CC`, cc, gcc or clang), or that does not take the source; the latter
    is logged as a warning. Its threads, by OpenMP, are as many as PyTorch's. Calls into it release the
    interpreter's lock.

    >>> load(Path("missing.c"))
    Traceback (most recent call last):
    FileNotFoundError: ...
    """
    text = b"".join(part.read_bytes() for part in (source, *sorted(Path(__file__).parent.glob("*.h"))))
    compiler = _compiler()
    if compiler is None:
        logging.getLogger(__name__).info("no C compiler: %s goes through PyTorch", source.stem)
        return None
    command = [compiler, *FLAGS, f"-I{Path(__file__).parent}"]
    command += [f"-D{name}={value}" for name, value in definitions.items()]
    key = hashlib.sha256(text + repr((command, _stamp(compiler), _processor())).encode()).hexdigest()
    name = f"{source.stem.strip('_')}-{key[:20]}.so"
    try:
        return ctypes.CDLL(str(_compiled(source, command, name)))
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        logging.getLogger(__name__).warning("%s goes through PyTorch: %s", source.stem, reason.strip())
        return None


def cache_folder() -> Path:
    """Where compiled libraries are kept: UNFOLDKIT_CACHE, else the user's cache folder."""
    chosen = os.environ.get("UNFOLDKIT_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unfoldkit"


def _compiled(source: Path, command: list[str], name: str) -> Path:
    """The library in the cache folder, or in a folder of its own where that cannot be written."""
    folder = cache_folder()
    library = folder / name
    if library.exists():
        return library
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(".part", name, folder)
    except OSError:
        library = Path(tempfile.mkdtemp()) / name
        handle, draft = tempfile.mkstemp(".part", name, library.parent)
    os.close(handle)
    try:
        subprocess.run(
            [*command, str(source), "-o", draft, "-lm"], check=True, capture_output=True, text=True
        )
        os.replace(draft, library)  # several processes may come here at once: the last one's stays
    finally:
        Path(draft).unlink(missing_ok=True)
    return library


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
