"""Weights in files: this project's safetensors and the papers' `.pkl`, read without running code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unfoldkit.common.files import write_whole

from .drpca_net import DRPCANet
from .l_rpcanet import LRPCANet
from .low_rank_rpcanet import LowRankRPCANet
from .published import recognised, translated
from .rpcanet import RPCANet
from .rpcanet_plus_plus import RPCANetPlusPlus
from .unfolding import UnfoldedNetwork, Unfolding

FORMAT = "unfoldkit"
PUBLISHED = "RPCANet, RPCANet++, DRPCA-Net or L-RPCANet"
NETWORKS: dict[str, type[UnfoldedNetwork]] = {
    "rpcanet": RPCANet,
    "rpcanet++": RPCANetPlusPlus,
    "lowrank": LowRankRPCANet,
    "drpca_net": DRPCANet,
    "l_rpcanet": LRPCANet,
}


def build(name: str, **architecture: Any) -> UnfoldedNetwork:
    """The network called `name`, untrained; `architecture` are its arguments.

    name: "rpcanet", "rpcanet++", "lowrank", "drpca_net" or "l_rpcanet".

    >>> build("rpcanet++", stages=3).architecture
    {'stages': 3, 'channels': 32, 'mean': 0.0, 'std': 255.0}
    """
    if name not in NETWORKS:
        raise ValueError(f"name must be one of {', '.join(NETWORKS)}, got {name!r}")
    return NETWORKS[name](**architecture)


def save_weights(net: UnfoldedNetwork, path: str | Path, training: dict[str, Any] | None = None) -> None:
    """Write `net` to a safetensors file that holds all that `load_weights` needs.

    Beside the tensors it carries the architecture, the input normalisation and `training`, the
    configuration (JSON values) that the network was trained with. Raises OSError where it cannot be written; what
    was there before then stays.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "net.safetensors"
    >>> save_weights(build("rpcanet", stages=2), path, training={"epochs": 3})
    >>> load_weights(path).architecture["stages"], read_training(path)
    (2, {'epochs': 3})
    """
    metadata = {
        "format": FORMAT,
        "network": name_of(net),
        "architecture": json.dumps(net.architecture),
        "training": json.dumps(training or {}),
        **processing(net.mean, net.std),
    }
    tensors = {key: tensor.contiguous() for key, tensor in net.state_dict().items()}
    write_whole(path, save(tensors, metadata))


def processing(mean: float, std: float) -> dict[str, str]:
    """In words, how grey levels become a network's input, and what its outputs are: metadata for its files."""
    return {
        "preprocessing": f"image = (levels - {mean:g}) / {std:g}; levels: grey, 0 to 255 (colour as BT.601 luma; "
        "16 bits divided by 257), float32 (batch, 1, height, width), any height and width",
        "postprocessing": "object: logits, sigmoid(object) is the probability of an object, a mask is where it "
        f"exceeds 0.5; background and restoration: grey levels are {std:g} * x + {mean:g}",
    }


def name_of(net: Unfolding) -> str:
    """What `build` calls a network; raises ValueError where it builds no such one."""
    for name, network in NETWORKS.items():
        if type(net) is network:
            return name
    raise ValueError(f"net must be one of {', '.join(NETWORKS)}, got a {type(net).__name__}")


def load_weights(path: str | Path) -> UnfoldedNetwork:
    """The network stored in `path`, in evaluation mode on the CPU, laid out channels-last (which runs faster).

    `path` is a safetensors file written by `save_weights`, or an officially published `.pkl` of RPCANet,
    RPCANet++, DRPCA-Net or L-RPCANet with any number of stages. What the file holds decides, not its name. Only
    tensors are read: a pickle that would run code is refused.

    Raises FileNotFoundError where there is no such file, ValueError where it holds anything else, with what
    was found.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected weights (.safetensors or a published .pkl)")
    net = _from_safetensors(path) if _is_safetensors(path) else _from_published(path)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types
    return net.eval()


def read_training(path: str | Path) -> dict[str, Any]:
    """The training configuration kept in the weights file `path`; empty for a published `.pkl`.

    Raises ValueError where the file cannot be read.
    """
    path = Path(path)
    training = _json(_metadata(path), "training", path) if _is_safetensors(path) else {}
    try:
        trained_size(training), trained_seed(training)
    except ValueError as error:
        raise ValueError(f"{path}: its {error}") from None
    return training


def trained_size(training: Mapping[str, Any]) -> int:
    """Height and width of pictures in a training configuration; 0, their own, where it cut crops out of them.

    Raises ValueError where it states them as anything but a number.

    >>> trained_size({"data": {"size": 128}}), trained_size({"data": {"size": 128, "crop": True}})
    (128, 0)
    """
    size = _count(training, "data", "size", 256)
    return 0 if training.get("data", {}).get("crop") else size


def trained_seed(training: Mapping[str, Any]) -> int:
    """The seed in a training configuration; raises ValueError where it is no number.

    >>> trained_seed({"recipe": {"seed": 7}}), trained_seed({})
    (7, 42)
    """
    return _count(training, "recipe", "seed", 42)


def _count(training: Mapping[str, Any], section: str, name: str, default: int) -> int:
    settings = training.get(section, {})
    value = settings.get(name, default) if isinstance(settings, Mapping) else None
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"training must state {section}.{name} as a number of at least 0, got {settings!r}")
    return value


def _is_safetensors(path: Path) -> bool:
    """A safetensors file begins with the length of its header, eight bytes, and a JSON object."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error


def _from_safetensors(path: Path) -> UnfoldedNetwork:
    metadata = _metadata(path)
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path}: a safetensors file without this project's description of a network; expected one "
            f"written by save_weights (for a folder of save_pretrained use from_pretrained), found {metadata}"
        )
    with safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
    architecture = _json(metadata, "architecture", path)
    stages = {key.split(".")[1] for key in state if key.startswith("stages.")}
    if architecture.get("stages") != len(stages):
        raise ValueError(
            f"{path}: states {architecture.get('stages')!r} stages, but holds tensors of {len(stages)}"
        )
    layers = architecture.get("noise_layers", 0)
    if isinstance(layers, int) and layers > len(state):
        raise ValueError(f"{path}: states {layers} layers of a noise step, but holds {len(state)} tensors")
    return _filled(metadata.get("network", ""), architecture, state, path)


def _json(metadata: dict[str, str], key: str, path: Path) -> dict[str, Any]:
    """A dictionary in a file's metadata; raises ValueError where it is none."""
    try:
        value = json.loads(metadata.get(key, "{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its {key} is not readable JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: its {key} must be a JSON object, found a {type(value).__name__}")
    return value


def _from_published(path: Path) -> UnfoldedNetwork:
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no common base for what a damaged or hostile file raises
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: neither safetensors nor a pickle of tensors ({reason})") from error
    pairs = published.items() if isinstance(published, dict) else [(None, None)]
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in pairs):
        raise ValueError(f"{path}: expected a dictionary of tensors, found {_described(published)}")
    claimed = sum(tensor.nelement() * tensor.element_size() for tensor in published.values())
    if claimed > path.stat().st_size:
        raise ValueError(f"{path}: claims tensors of {claimed} bytes in a file of {path.stat().st_size}")
    return from_published(published, source=path)


def from_published(published: dict[str, Tensor], source: str | Path = "state dict") -> UnfoldedNetwork:
    """The network of an officially published state dict (keys `decos.{stage}.*`), in evaluation mode.

    Network, stages and channels follow from the keys, as do c and n of an L-RPCANet. The gates of each
    convolutional LSTM are put side by side; those that the first stage never runs are left out. `source` names the
    origin in errors.

    Raises ValueError where keys or shapes are not those of RPCANet, RPCANet++, DRPCA-Net or L-RPCANet.
    """
    found = recognised(published)
    if found is None:
        raise ValueError(
            f"{source}: expected keys 'decos.0.lowrank...' of {PUBLISHED}, found {_described(published)}"
        )
    name, architecture = found
    try:
        state = translated(name, published)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{source}: gates of an LSTM are missing or do not fit each other ({error})"
        ) from error
    return _filled(name, architecture, state, source).eval()


def _filled(
    name: str, architecture: dict[str, Any], state: dict[str, Tensor], source: str | Path
) -> UnfoldedNetwork:
    """The network with the tensors of `state`; nothing is allocated before they are known to fit."""
    try:
        with torch.device("meta"):
            net = build(name, **architecture)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{source}: describes no network of this package ({error})") from error
    try:
        net.load_state_dict({key: tensor.detach().clone() for key, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{source}: the tensors do not fit {type(net).__name__}: {error}") from error
    return net.float()


def _described(found: object) -> str:
    if not isinstance(found, dict):
        return f"a {type(found).__name__}"
    keys = ", ".join(map(str, list(found)[:3]))
    return f"{len(found)} entries ({keys}, ...)" if found else "an empty dictionary"
