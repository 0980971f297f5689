"""A network's tensors out of whatever they were saved in, without running code from the file."""

import io
import json
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from huggingface_hub.constants import CONFIG_NAME, PYTORCH_WEIGHTS_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ..compression.forms import MARK

DEPTH = 4  # of dictionaries in dictionaries
UNTOLD = {"network": ("carry_noise",), "data": ("mean", "std")}  # what no tensor tells, by section
SWELLING = 20  # how many times its size a file may hold
STAGE = re.compile(r"(.*?)(?:stages|decos)\.\d+\.")
ZIP, NPY, TORCH = b"PK\x03\x04", b"\x93NUMPY", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
WHAT_TO_DO = (
    "code from a file is never run; where it was made, save the tensors alone: "
    "torch.save(net.state_dict(), 'weights.pth')"
)


class Unwrapped(NamedTuple):
    """A network's tensors by name, and the configuration that was kept beside them, empty where there is none."""

    tensors: dict[str, Tensor]
    training: dict[str, Any]


def unwrapped(path: Path) -> Unwrapped:
    """The tensors named [PREFIX.]stages.N.* or [PREFIX.]decos.N.* in `path`, without their prefix.

    `path` is a file of torch.save, pickle or numpy.save[z], or of safetensors, in which they lie as they are or
    in dictionaries (state_dict, net, a Lightning checkpoint, ...), or a folder of save_pretrained. Where a
    Lightning checkpoint keeps the run's configuration, that is the training; of save_pretrained's it is what
    the network was trained with, where that was known, and what no tensor tells (`UNTOLD`).

    Raises FileNotFoundError where a folder holds no weights, ValueError where the file holds anything but tensors,
    numbers and text, or no network or more than one.
    """
    if path.is_dir():
        return _of_folder(path)
    content = _read(path)
    tensors = _the_network(content, path)
    return Unwrapped(tensors, _configuration(content))


def _of_folder(folder: Path) -> Unwrapped:
    names = (SAFETENSORS_SINGLE_FILE, PYTORCH_WEIGHTS_NAME)
    weights = next((folder / name for name in names if (folder / name).is_file()), None)
    if weights is None:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
        raise FileNotFoundError(f"{folder}: expected {names[0]}, as save_pretrained writes it, found {there}")
    stated = _json(folder / CONFIG_NAME) if (folder / CONFIG_NAME).is_file() else {}
    sections = {
        section: {name: stated[name] for name in names if name in stated} for section, names in UNTOLD.items()
    }
    training = stated.get("training", {})
    if not isinstance(training, dict) or not all(isinstance(training.get(key, {}), dict) for key in sections):
        raise ValueError(
            f"{folder / CONFIG_NAME}: its training must hold sections such as data, found {training!r:.60}"
        )
    for section, values in sections.items():
        if values:
            training[section] = {**training.get(section, {}), **values}
    return Unwrapped(_the_network(_read(weights), weights), training)


def _json(path: Path) -> dict[str, Any]:
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable JSON ({error})") from None
    if not isinstance(stated, dict):
        raise ValueError(f"{path}: expected a JSON object, found a {type(stated).__name__}")
    return stated


def _configuration(content: object) -> dict[str, Any]:
    """What `unfoldkit.common.checkpoints.Provenance` kept in a checkpoint."""
    callbacks = content.get("callbacks") if isinstance(content, Mapping) else None
    for state in callbacks.values() if isinstance(callbacks, Mapping) else ():
        if isinstance(state, Mapping) and isinstance(state.get("configuration"), dict):
            return state["configuration"]
    return {}


# Which tensors are the network's


def _the_network(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors of the one network in `content`; raises ValueError where there is none, or more."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected a dictionary of tensors, found {described(content)}")
    networks = {
        f"{place}{prefix}": state
        for place, mapping in _mappings(content)
        for prefix, state in _by_prefix(mapping, path).items()
    }
    if not networks:
        raise ValueError(
            f"{path}: without this project's description of a network; expected keys 'decos.0.lowrank...' as "
            f"published, or 'stages.0...' as in this package's state_dict, found {described(content)}"
        )
    if len(networks) > 1:
        raise ValueError(f"{path}: holds networks at {', '.join(networks)}; save the one that is meant alone")
    (state,) = networks.values()
    claimed = sum(tensor.nelement() * tensor.element_size() for tensor in state.values())
    if claimed > SWELLING * path.stat().st_size:
        raise ValueError(f"{path}: claims tensors of {claimed} bytes in a file of {path.stat().st_size}")
    for name, tensor in state.items():
        _require_plain(name, tensor, path)
    return state


def _mappings(
    content: Mapping[Any, Any], place: str = "", depth: int = DEPTH
) -> Iterator[tuple[str, Mapping]]:
    yield place, content
    for key, value in content.items() if depth else ():
        if isinstance(value, Mapping):
            yield from _mappings(value, f"{place}{key}/", depth - 1)


def _by_prefix(mapping: Mapping[Any, Any], path: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of each network in one dictionary, by what its keys begin with."""
    named = {
        key.replace("_orig_mod.", ""): value
        for key, value in mapping.items()
        if isinstance(key, str) and isinstance(value, (Tensor, _Array))
    }
    prefixes = {match[1] for key in named if (match := STAGE.match(key))}
    return {
        prefix: {
            key[len(prefix) :]: value.tensor(path) if isinstance(value, _Array) else value
            for key, value in named.items()
            if key.startswith(prefix)
        }
        for prefix in sorted(prefixes)
    }


def _require_plain(name: str, tensor: Tensor, path: Path) -> None:
    counter = name.endswith(("num_batches_tracked", f"{MARK}marks"))
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    if not plain or not (tensor.is_floating_point() or counter):
        raise ValueError(
            f"{path}: expected dense real weights, found {name} in {tensor.dtype} ({tensor.layout}, "
            f"{tensor.device}); quantised, sparse and empty networks are not read"
        )


def described(found: object) -> str:
    """What a file holds, in few words."""
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}"
    keys = ", ".join(str(key)[:60] for key in list(found)[:3])
    return f"{len(found)} entries ({keys}, ...)" if found else "an empty dictionary"


# Reading without running


def _read(path: Path) -> object:
    """What a file of any of the kinds holds; numpy's arrays as `_Array`."""
    start = _start(path)
    try:
        if start[8:9] == b"{":
            return load(path.read_bytes())
        if start.startswith(NPY):
            return _of_npy(io.BytesIO(path.read_bytes()))
        if start.startswith(ZIP) and _members(path, ".npy"):
            return _of_npz(path)
        if start.startswith((ZIP, TORCH)):
            return _of_torch(path)
        return _DataUnpickler(io.BytesIO(path.read_bytes())).load()
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    except Exception as error:  # unpickling damaged or hostile bytes raises anything
        reason = _reason(path, error)
        raise ValueError(f"{path}: neither safetensors nor a pickle of tensors ({reason})") from error


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(TORCH))


def _members(path: Path, ending: str) -> list[str]:
    try:
        with zipfile.ZipFile(path) as file:
            return [name for name in file.namelist() if name.endswith(ending)]
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return []


def _reason(path: Path, error: Exception) -> str:
    """What is wrong in our words: what else than tensors the file asks for, or that it is damaged."""
    asked = re.search(r"(?:GLOBAL|class|calls for) ([\w.]+)", str(error))
    if asked:
        return f"it calls for {asked[1]}; {WHAT_TO_DO}"
    if _start(path).startswith(ZIP) and _members(path, "constants.pkl"):
        return f"it is a TorchScript program; {WHAT_TO_DO}"
    return "it is damaged, cut off, or of another kind or pickle protocol than torch writes"


def _of_torch(path: Path) -> object:
    with torch.serialization.safe_globals([(made, name) for name, made in NUMPY.items()]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _of_npz(path: Path) -> dict[str, object]:
    with zipfile.ZipFile(path) as file:
        if sum(entry.file_size for entry in file.infolist()) > SWELLING * path.stat().st_size:
            raise ValueError("an archive that swells")
        return {name.removesuffix(".npy"): _of_npy(io.BytesIO(file.read(name))) for name in file.namelist()}


def _of_npy(file: io.BytesIO) -> object:
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        found = _DataUnpickler(file).load()
        return found.alone() if isinstance(found, _Array) else found
    return _Array(shape, dtype, fortran, file.read())


class _Array:
    """An array of numpy's, as it is written in a pickle; nothing is allocated by what it claims."""

    def __init__(
        self, shape: tuple[int, ...] = (0,), dtype: Any = None, fortran: bool = False, raw: Any = b""
    ) -> None:
        self.shape, self.dtype, self.fortran, self.raw = shape, dtype, fortran, raw

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.dtype, self.fortran, self.raw = state

    def tensor(self, path: Path) -> Tensor:
        dtype = self.dtype.dtype if isinstance(self.dtype, _DType) else self.dtype
        order = "F" if self.fortran else "C"
        try:
            values = np.frombuffer(self.raw, dtype).reshape(self.shape, order=order)  # type: ignore[call-overload]
            return torch.from_numpy(values.astype(dtype.newbyteorder("="), order="C"))
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path}: an array that is not read ({error})") from error

    def alone(self) -> object:
        """What an array of one object holds."""
        if self.shape != () or not isinstance(self.raw, list) or len(self.raw) != 1:
            raise ValueError(f"expected one dictionary, found objects of shape {self.shape}")
        return self.raw[0]


class _DType:
    """A type of numpy's numbers, as it is written in a pickle."""

    def __init__(self, kind: str, *_: object) -> None:
        self.dtype = np.dtype(kind)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


def _array(*_: object) -> _Array:
    """numpy's _reconstruct, whose state follows."""
    return _Array()


def _array_of_buffer(buffer: bytes, dtype: _DType, shape: tuple[int, ...], order: str) -> _Array:
    """numpy's _frombuffer."""
    return _Array(shape, dtype, order == "F", buffer)


def _number(dtype: _DType, raw: bytes) -> Any:
    """A scalar of numpy's."""
    return np.frombuffer(raw, dtype.dtype)[0].item()


def _encoded(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _storage(content: bytes) -> Any:
    """A tensor's numbers in a pickle; torch's own function would run code from them."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    there = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    if min(offset, *stride, 0) < 0 or last >= there:
        raise pickle.UnpicklingError(f"a tensor that ends at {last} of {there} numbers")
    return torch._utils._rebuild_tensor(storage, offset, size, stride)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


# What a file may call for, and what answers in its place.
NUMPY: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    **{f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": _number for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _array_of_buffer for core in ("core", "_core")},
}
PLAIN: dict[str, Callable[..., Any]] = {
    **NUMPY,
    "collections.OrderedDict": OrderedDict,
    "_codecs.encode": _encoded,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.storage._load_from_bytes": _storage,
}


class _DataUnpickler(pickle._Unpickler):
    """Python's unpickler, with nothing to call but `PLAIN`.

    Not the one in C, which allocates what a damaged file claims.
    """

    stack: list[Any]
    read: Callable[[int], bytes]
    append: Callable[[object], None]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in PLAIN:
            raise pickle.UnpicklingError(f"calls for {module}.{name}")
        return PLAIN[f"{module}.{name}"]

    def load_build(self) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, (_Array, _DType)):
            made.__setstate__(state)
        elif not isinstance(made, OrderedDict):  # whose state is modules' versions
            raise pickle.UnpicklingError(f"state for a {type(made).__name__}")

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(length))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
