"""CUDA C of this project to machine code, without PyTorch: NVRTC and the driver, both called through ctypes.

NVRTC comes with PyTorch's CUDA wheels, the driver with the GPU. What NVRTC compiles is kept in the user's cache
folder, a file for each source, its definitions, architecture and version of NVRTC, as `kernels.native.compiler`
keeps libraries of C.
"""

import ctypes
import hashlib
import os
import re
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from .files import cache_folder

OPTIONS = ("--std=c++17", "--device-as-default-execution-space", "--fmad=true", "--restrict")
HEADERS = Path(__file__).parents[1] / "kernels" / "gpu"
_CAPABILITY = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, MINOR

_building: dict[Path, threading.Lock] = {}


class CompilationError(RuntimeError):
    """NVRTC's complaint about a source."""


def cubin(source: Path, architecture: str, **definitions: str | int) -> bytes:
    """What `source` compiles to for an architecture such as sm_90; it needs no GPU.

    Raises OSError where there is no NVRTC, and CompilationError.
    """
    library = nvrtc()
    folders = (HEADERS, *library.headers)
    options = [f"--gpu-architecture={architecture}", *OPTIONS]
    options += [f"--define-macro={name}={value}" for name, value in definitions.items()]
    parts = b"".join(path.read_bytes() for path in _with_headers(source.resolve()))
    key = hashlib.sha256(parts + repr((options, library.version)).encode()).hexdigest()
    options += [f"--include-path={folder}" for folder in (source.parent, *folders)]
    kept = cache_folder() / f"{source.stem}-{key[:20]}.cubin"
    with _building.setdefault(kept, threading.Lock()):  # by one thread, which others wait for
        with suppress(OSError):
            return kept.read_bytes()
        binary = _compiled(library.functions, source, options)
        with suppress(OSError):  # a folder that cannot be written keeps nothing
            _keep(kept, binary)
        return binary


def _with_headers(source: Path) -> list[Path]:
    """A file and all it includes of this project, each once."""
    found, rest = [], [source]
    while rest:
        path = rest.pop()
        if path in found:
            continue
        found.append(path)
        for name in re.findall(r'^#include "(.+)"', path.read_text(encoding="utf-8"), re.MULTILINE):
            beside, here = path.parent / name, HEADERS / name
            rest += [part.resolve() for part in (beside, here) if part.is_file()][:1]
    return found


class Nvrtc(NamedTuple):
    """The library, its version, and folders of the headers that come with it."""

    functions: ctypes.CDLL
    version: tuple[int, int]
    headers: tuple[Path, ...]


@lru_cache(1)
def nvrtc() -> Nvrtc:
    """The newest of the wheels, or of the system, that the driver takes; raises OSError where there is none."""
    newest = driver_version()
    wheels = (path for folder in sys.path for path in Path(folder or ".").glob("nvidia/*/lib/libnvrtc.so.*"))
    found = sorted((int(path.name.split(".")[2]), str(path)) for path in wheels)
    names = [name for major, name in reversed(found) if newest is None or major <= newest]
    names += [f"libnvrtc.so.{major}" for major in (13, 12) if newest is None or major <= newest]
    error = OSError("no NVRTC")
    for name in names:
        try:
            for builtins in Path(name).parent.glob(
                "libnvrtc-builtins.so.*"
            ):  # which it looks for by name only
                ctypes.CDLL(str(builtins))
            library = ctypes.CDLL(name)
        except OSError as cause:
            error = cause
            continue
        version = ctypes.c_int(), ctypes.c_int()
        _require(library, library.nvrtcVersion(*map(ctypes.byref, version)))
        home = Path(name).parent.parent
        headers = (home / "include", home.parent / "cuda_runtime/include", Path("/usr/local/cuda/include"))
        return Nvrtc(
            library, (version[0].value, version[1].value), tuple(path for path in headers if path.is_dir())
        )
    raise error


def _compiled(library: ctypes.CDLL, source: Path, options: Sequence[str]) -> bytes:
    program = ctypes.c_void_p()
    text, name = source.read_bytes(), source.name.encode()
    _require(library, library.nvrtcCreateProgram(ctypes.byref(program), text, name, 0, None, None))
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if library.nvrtcCompileProgram(program, len(options), given):
            raise CompilationError(_text(library, program, "ProgramLog").decode(errors="replace").strip())
        return _text(library, program, "CUBIN")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _text(library: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _require(library, library[f"nvrtcGet{what}Size"](program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _require(library, library[f"nvrtcGet{what}"](program, buffer))
    return buffer.raw


def _require(library: ctypes.CDLL, result: int) -> None:
    if result:
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"NVRTC: {library.nvrtcGetErrorString(result).decode()}")


def _keep(path: Path, binary: bytes) -> None:
    """Several processes may come here at once: the last one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(".part", path.name, path.parent)
    with os.fdopen(handle, "wb") as file:
        file.write(binary)
    os.replace(draft, path)


@lru_cache(1)
def driver() -> ctypes.CDLL:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def check(result: int) -> None:
    if result:
        name = ctypes.c_char_p()
        driver().cuGetErrorName(result, ctypes.byref(name))
        raise RuntimeError(f"CUDA driver: {(name.value or b'unknown').decode()}")


def driver_version() -> int | None:
    """Of CUDA, the major; None without a driver."""
    version = ctypes.c_int()
    try:
        check(driver().cuDriverGetVersion(ctypes.byref(version)))
    except (OSError, RuntimeError):
        return None
    return version.value // 1000


def architecture(index: int) -> str:
    """Of a GPU, such as sm_90. Raises OSError or RuntimeError where there is none."""
    number, found = ctypes.c_int(), []
    for attribute in _CAPABILITY:
        check(driver().cuDeviceGetAttribute(ctypes.byref(number), attribute, _device(index)))
        found.append(number.value)
    return "sm_{}{}".format(*found)


def start_gpu(index: int) -> None:
    """Let the driver start a GPU, which takes a while; PyTorch works in the same context.

    Raises OSError or RuntimeError where there is none.
    """
    context = ctypes.c_void_p()
    check(driver().cuDevicePrimaryCtxRetain(ctypes.byref(context), _device(index)))


def _device(index: int) -> ctypes.c_int:
    device = ctypes.c_int()
    check(driver().cuInit(0))
    check(driver().cuDeviceGet(ctypes.byref(device), index))
    return device
