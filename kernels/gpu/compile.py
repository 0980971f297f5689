"""CUDA C of this project, compiled for the GPU at hand when it is first needed, and launched beside PyTorch.

NVRTC comes with PyTorch's CUDA wheels, the driver with the GPU; both are called through ctypes. What it compiles
is kept in the user's cache folder, a file for each source, its definitions, architecture and version of NVRTC, as
`kernels.native.compiler` keeps libraries of C. Where there is no NVRTC, or it does not take the source, whoever
asked goes the way of PyTorch, and one line says so.
"""

import ctypes
import hashlib
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..native.compiler import cache_folder

OPTIONS = ("--std=c++17", "--device-as-default-execution-space", "--fmad=true", "--restrict")
_MOST_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_UNPROMPTED_SHARED = 48 * 1024  # bytes of shared memory that a kernel may have without asking

Size = tuple[int, ...]
_building: dict[Path, threading.Lock] = {}


class CompilationError(RuntimeError):
    """NVRTC's complaint about a source."""


class Kernel:
    """An `extern "C" __global__` function on one GPU; see `kernel`."""

    def __init__(self, handle: ctypes.c_void_p, device: torch.device) -> None:
        self._handle, self._device, self._shared = handle, device, _UNPROMPTED_SHARED

    def __call__(self, grid: Size | int, block: Size | int, shared: int, *arguments: Any) -> None:
        """Launch it on PyTorch's current stream, with `shared` bytes of dynamic shared memory.

        Tensors go as pointers, int as int32, float as float64, numbers and structures of ctypes as they are.
        Raises RuntimeError where the driver refuses.
        """
        if torch.cuda.current_device() != self._device.index:
            with torch.cuda.device(self._device):
                self(grid, block, shared, *arguments)
            return
        driver, values = _driver(), [_argument(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        if shared > self._shared:
            self._shared = shared
            _check(driver.cuFuncSetAttribute(self._handle, _MOST_DYNAMIC_SHARED, shared))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        _check(
            driver.cuLaunchKernel(self._handle, *_three(grid), *_three(block), shared, stream, pointers, None)
        )


def kernel(source: Path, name: str, device: torch.device, **definitions: str | int) -> Kernel | None:
    """The function `name` of a CUDA C file, compiled for `device` with these preprocessor definitions.

    Functions without a qualifier are the device's, so that a header may serve C as well. None where it cannot be
    compiled; that is logged as a warning, once.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    return _kernel(source, name, index, tuple(sorted(definitions.items())))


@lru_cache(None)
def _kernel(
    source: Path, name: str, index: int, definitions: tuple[tuple[str, str | int], ...]
) -> Kernel | None:
    device = torch.device("cuda", index)
    module = _module(source, index, definitions)
    if module is None:
        return None
    handle = ctypes.c_void_p()
    with torch.cuda.device(device):
        _check(_driver().cuModuleGetFunction(ctypes.byref(handle), module, name.encode()))
    return Kernel(handle, device)


@lru_cache(None)
def _module(
    source: Path, index: int, definitions: tuple[tuple[str, str | int], ...]
) -> ctypes.c_void_p | None:
    architecture = "sm_{}{}".format(*torch.cuda.get_device_capability(index))
    module = ctypes.c_void_p()
    try:
        binary = cubin(source, architecture, **dict(definitions))
        with torch.cuda.device(index):
            torch.cuda.current_stream(index).synchronize()  # the context is there
            _check(_driver().cuModuleLoadData(ctypes.byref(module), binary))
    except (OSError, RuntimeError) as error:
        logging.getLogger(__name__).warning(
            "%s goes through PyTorch, more slowly: it cannot be compiled for %s (%s)",
            source.stem,
            architecture,
            error,
        )
        return None
    return module


def cubin(source: Path, architecture: str, **definitions: str | int) -> bytes:
    """What `source` compiles to for an architecture such as sm_90; it needs no GPU.

    Raises OSError where there is no NVRTC, and CompilationError.
    """
    library = nvrtc()
    folders = (Path(__file__).parent, *library.headers)
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
            beside, here = path.parent / name, Path(__file__).parent / name
            rest += [part.resolve() for part in (beside, here) if part.is_file()][:1]
    return found


class Nvrtc(NamedTuple):
    """The library, its version, and folders of the headers that come with it."""

    functions: ctypes.CDLL
    version: tuple[int, int]
    headers: tuple[Path, ...]


@lru_cache(1)
def nvrtc() -> Nvrtc:
    """That of PyTorch's CUDA wheels, or of the system; raises OSError where there is none."""
    major = (torch.version.cuda or "").split(".")[0] or "*"
    pattern = f"nvidia/*/lib/libnvrtc.so.{major}"
    found = sorted(
        path for folder in sys.path for path in Path(folder or ".").glob(pattern) if "alt" not in path.name
    )
    names = [*map(str, found), *(f"libnvrtc.so.{n}" for n in ([major] if major != "*" else ["13", "12"]))]
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
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


def _check(result: int) -> None:
    if result:
        name = ctypes.c_char_p()
        _driver().cuGetErrorName(result, ctypes.byref(name))
        raise RuntimeError(f"CUDA driver: {(name.value or b'unknown').decode()}")


def _three(size: Size | int) -> Size:
    sizes = (size,) if isinstance(size, int) else size
    return (*sizes, *[1] * (3 - len(sizes)))


def _argument(value: Any) -> Any:
    """A ctypes object whose address the driver takes."""
    if type(value) is int:
        return ctypes.c_int(value)
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, float):
        return ctypes.c_double(value)
    return value
