"""Weights in files: this project's safetensors and the papers' `.pkl`, read without running code."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from unfoldkit.common.files import write_whole
from unfoldkit.common.weights import require_finite

from ...datasets.records import padding_of
from ..zoo.pretrained import PREFIX, Card, checksum, zoo_file
from .drpca_net import DRPCANet
from .l_rpcanet import LRPCANet
from .low_rank_rpcanet import LowRankRPCANet
from .published import recognised, sizes_of, translated
from .rpcanet import RPCANet
from .rpcanet_plus_plus import RPCANetPlusPlus
from .unfolding import UnfoldedNetwork, Unfolding
from .unwrapping import UNTOLD, described, unwrapped

FORMAT = "unfoldkit"
PUBLISHED = "RPCANet, RPCANet++, DRPCA-Net or L-RPCANet"
NETWORKS: dict[str, type[UnfoldedNetwork]] = {
    "rpcanet": RPCANet,
    "rpcanet++": RPCANetPlusPlus,
    "lowrank": LowRankRPCANet,
    "drpca_net": DRPCANet,
    "l_rpcanet": LRPCANet,
}
# In words: how colour becomes grey and what becomes of a file's levels, as a training states them.
GREY = {
    "opencv": "colour as BT.601 luma, as OpenCV decodes it to grey",
    "pillow": "colour as BT.601 luma of the decoded colours, as Pillow's convert('L')",
}
OWN = "from each picture's own low and high level (its percentiles 1 and 99, and what lies close beyond)"
DEPTHS = {
    "full": "the whole range of a file's type onto 0 to 255, 16 bits divided by 257",
    "percentile": f"{OWN} onto 0 to 255",
    "default": f"8 bits as they are, 16 bits that fill their range divided by 257, others {OWN} onto 0 to 255",
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


def pretrained(network: str, data_set: str) -> UnfoldedNetwork:
    """The network of the weights zoo:`network`-`data_set` that come with the package, as `load_weights` gives it.

    network: such as "rpcanet++-s3".  data_set: what it was trained on, such as "nudt_sirst".
    Raises FileNotFoundError, with what there is, where there are none.

    >>> pretrained("rpcanet++-s6", "neu_seg").architecture["stages"]
    6
    """
    return load_weights(f"{PREFIX}{network}-{data_set}")


def save_weights(
    net: UnfoldedNetwork,
    path: str | Path,
    training: dict[str, Any] | None = None,
    half: bool = False,
    card: Card | None = None,
) -> None:
    """Write `net` to a safetensors file that holds all that `load_weights` needs.

    Beside the tensors and their checksum it carries the architecture, in words how pictures become input, and
    `training`, the configuration (JSON values) that the network was trained with, by default its `record`. half:
    convolutions are kept in float16. card: of weights that come with the package. Raises OSError where it cannot
    be written; what was there before then stays.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "net.safetensors"
    >>> save_weights(build("rpcanet", stages=2), path, training={"epochs": 3})
    >>> load_weights(path).architecture["stages"], read_training(path)
    (2, {'epochs': 3})
    """
    tensors = {key: tensor.contiguous() for key, tensor in net.state_dict().items()}
    if half:
        tensors = {key: x.half() if x.is_floating_point() and x.ndim > 1 else x for key, x in tensors.items()}
    training = net.record if training is None else training
    metadata = {
        "format": FORMAT,
        "network": name_of(net),
        "architecture": json.dumps(net.architecture),
        "training": json.dumps(training),
        **processing(net.mean, net.std, training),
        "checksum": checksum(tensors),
        **({"card": json.dumps(asdict(card))} if card else {}),
    }
    write_whole(path, save(tensors, metadata))


def derived_file(weights: str, out: str | None, ending: str) -> Path:
    """Where a file made from `weights` goes: `out`, else their name and `ending` in this folder.

    Raises ValueError where that is the file of the weights itself.

    >>> derived_file("zoo:rpcanet++-s3-sirst", None, ".onnx").name
    'rpcanet++-s3-sirst.onnx'
    """
    path = Path(out or Path(weights.removeprefix(PREFIX)).stem + ending)
    if path.exists() and Path(weights).exists() and path.samefile(weights):
        raise ValueError(f"{path}: holds the weights that it would be made from; choose another --out")
    return path


def processing(mean: float, std: float, training: Mapping[str, Any]) -> dict[str, str]:
    """In words, how a picture becomes a network's input, and what its outputs are: metadata for its files.

    training: as `save_weights` takes it; what it does not state is described as the commands do it by default.
    """
    stated = training.get("data")
    data = stated if isinstance(stated, Mapping) else {}
    grey = GREY.get(str(data.get("grey")), "colour as BT.601 luma")
    levels = str(data.get("levels") or "default")
    depth = DEPTHS.get(levels, f"a file's levels {levels} onto 0 and 255, clipped beyond")
    return {
        "preprocessing": f"image = (levels - {mean:g}) / {std:g}, float32 (batch, 1, height, width), "
        f"{_sizes(data)}{_padding(training)}; levels: grey, 0 to 255; {grey}; {depth}",
        "postprocessing": "object: logits, sigmoid(object) is the probability of an object, a mask is where it "
        f"exceeds 0.5; background and restoration: grey levels are {std:g} * x + {mean:g}",
    }


def _sizes(data: Mapping[str, Any]) -> str:
    """In words, which height and width an input may have, and which those of the training had."""
    if "size" not in data:
        return "any height and width, in training not stated: the commands resize pictures to 256x256 (bilinearly)"
    size = data["size"]
    if not size:
        return "any height and width"
    if data.get("crop"):
        return (
            f"any height and width, trained on windows of {size}x{size} cut out of pictures at their own size"
        )
    return f"any height and width, trained on pictures resized to {size}x{size} (bilinearly)"


def _padding(training: Mapping[str, Any]) -> str:
    """In words, what is added to a picture for the protocol of a training."""
    recipe = training.get("recipe")
    multiple = padding_of(str(recipe.get("protocol"))) if isinstance(recipe, Mapping) else 1
    return f", padded with zeros below and to the right to multiples of {multiple}" if multiple > 1 else ""


def name_of(net: Unfolding) -> str:
    """What `build` calls a network; raises ValueError where it builds no such one."""
    for name, network in NETWORKS.items():
        if type(net) is network:
            return name
    raise ValueError(f"net must be one of {', '.join(NETWORKS)}, got a {type(net).__name__}")


def load_weights(path: str | Path) -> UnfoldedNetwork:
    """The network stored in `path`, in evaluation mode on the CPU, laid out channels-last (which runs faster).

    `path` is a safetensors file written by `save_weights`; an officially published `.pkl` of any number of stages;
    the state_dict of such a network or of one of this package's, as it is or wrapped (see `unwrapped`: in
    dictionaries, with prefixed keys, in half precision, as numpy arrays, in a Lightning checkpoint); a folder
    of save_pretrained; or zoo:NAME, weights that come with the package. What the file holds decides, not its name;
    the architecture follows from keys and shapes, and its `record` is what `read_training` reads.
    Only tensors, numbers and text are read: a pickle that would run code is refused.

    Raises FileNotFoundError where there is no such file, ValueError where it holds anything else, with what
    was found.
    """
    path = _found(path)
    net = _from_safetensors(path) if _is_own(path) else _from_unwrapped(path)
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types
    return net.eval()


def read_training(path: str | Path) -> dict[str, Any]:
    """The training configuration kept in the weights file `path`.

    Of a Lightning checkpoint it is its run's; of a folder of save_pretrained the network's `record`, mean and std;
    of a published `.pkl`, and a state_dict, it is empty.

    Raises FileNotFoundError where there is no such file, ValueError where it cannot be read.
    """
    path = _found(path)
    training = _json(_metadata(path), "training", path) if _is_own(path) else unwrapped(path).training
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


def _found(path: str | Path) -> Path:
    if str(path).startswith(PREFIX):
        return zoo_file(str(path).removeprefix(PREFIX))
    if not Path(path).exists():
        raise FileNotFoundError(
            f"{path}: no such file; expected weights (.safetensors, a published .pkl or zoo:NAME)"
        )
    return Path(path)


def _is_own(path: Path) -> bool:
    """Whether `save_weights` wrote it: a safetensors file, which begins with its header's length, that says so."""
    if path.is_dir():
        return False
    with path.open("rb") as file:
        safetensors = file.read(9)[8:] == b"{"
    return safetensors and _metadata(path).get("format") == FORMAT


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error


def _from_safetensors(path: Path) -> UnfoldedNetwork:
    metadata = _metadata(path)
    with safe_open(path, framework="pt") as file:
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
    if metadata.get("checksum", checksum(state)) != checksum(state):
        raise ValueError(f"{path}: its tensors are not those that were written (their checksum differs)")
    architecture = _json(metadata, "architecture", path)
    stages = {key.split(".")[1] for key in state if key.startswith("stages.")}
    if architecture.get("stages") != len(stages):
        raise ValueError(
            f"{path}: states {architecture.get('stages')!r} stages, but holds tensors of {len(stages)}"
        )
    layers = architecture.get("noise_layers", 0)
    if isinstance(layers, int) and layers > len(state):
        raise ValueError(f"{path}: states {layers} layers of a noise step, but holds {len(state)} tensors")
    net = _filled(metadata.get("network", ""), architecture, state, path)
    net.record = _json(metadata, "training", path)
    return net


def _json(metadata: dict[str, str], key: str, path: Path) -> dict[str, Any]:
    """A dictionary in a file's metadata; raises ValueError where it is none."""
    try:
        value = json.loads(metadata.get(key, "{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: its {key} is not readable JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: its {key} must be a JSON object, found a {type(value).__name__}")
    return value


def _from_unwrapped(path: Path) -> UnfoldedNetwork:
    state, training = unwrapped(path)
    if any(key.startswith("decos.") for key in state):
        return from_published(state, source=path)
    architecture = sizes_of(state)
    for section, names in UNTOLD.items():
        stated = training.get(section)
        if isinstance(stated, Mapping):
            architecture |= {name: stated[name] for name in names if name in stated}
    net = _filled(_named_by(state, architecture), architecture, state, path)
    net.record = training
    return net


def _named_by(state: dict[str, Tensor], architecture: dict[str, Any]) -> str:
    """The network whose first stage has the keys that `state` has, or the most of them."""
    first = {key for key in state if key.startswith("stages.0.")}

    def strange(name: str) -> int:
        try:
            with torch.device("meta"):
                return len(first ^ build(name, **architecture | {"stages": 1}).state_dict().keys())
        except (TypeError, ValueError, RuntimeError):
            return len(first) + 1

    return min(NETWORKS, key=strange)


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
            f"{source}: expected keys 'decos.0.lowrank...' of {PUBLISHED}, found {described(published)}"
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
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{source}: the tensors do not fit {type(net).__name__}: {reason[:500]}") from error
    net.float()
    require_finite(net, source)
    return net
