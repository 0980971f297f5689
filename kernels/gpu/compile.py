"""CUDA C of this project, compiled for the GPU at hand when it is first needed, and launched beside PyTorch.

`common.nvrtc` compiles and keeps it. Where there is no NVRTC, or it does not take the source, whoever asked goes
the way of PyTorch, and one line says so.
"""

import ctypes
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unfoldkit.common.nvrtc import check, cubin, driver

_MOST_DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_UNPROMPTED_SHARED = 48 * 1024  # bytes of shared memory that a kernel may have without asking

Size = tuple[int, ...]


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
        library, values = driver(), [_argument(argument) for argument in arguments]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        if shared > self._shared:
            self._shared = shared
            check(library.cuFuncSetAttribute(self._handle, _MOST_DYNAMIC_SHARED, shared))
        stream = _stream(self._device)
        check(
            library.cuLaunchKernel(
                self._handle, *_three(grid), *_three(block), shared, stream, pointers, None
            )
        )


def wait(device: torch.device) -> None:
    """Return when everything on PyTorch's current stream of a GPU has run; raises RuntimeError where it failed."""
    if torch.cuda.current_device() != device.index:  # each has a default stream, all of one name
        with torch.cuda.device(device):
            wait(device)
        return
    check(driver().cuStreamSynchronize(_stream(device)))


def _stream(device: torch.device) -> ctypes.c_void_p:
    """PyTorch's current one, without the object that `torch.cuda.current_stream` makes: some 3 microseconds."""
    return ctypes.c_void_p(torch._C._cuda_getCurrentRawStream(device.index))


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
        check(driver().cuModuleGetFunction(ctypes.byref(handle), module, name.encode()))
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
            check(driver().cuModuleLoadData(ctypes.byref(module), binary))
    except (OSError, RuntimeError) as error:
        logging.getLogger(__name__).warning(
            "%s goes through PyTorch, more slowly: it cannot be compiled for %s (%s)",
            source.stem,
            architecture,
            error,
        )
        return None
    return module


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
