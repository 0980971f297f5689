"""The weights that come with the package, called zoo:NETWORK-DATA_SET wherever weights are asked for."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

FOLDER = Path(__file__).parent
PREFIX = "zoo:"


@dataclass(frozen=True)
class Card:
    """What is known of one set of weights.

    data_set: what it was trained on, as the options call it.
    licence: of the pictures that it learnt from.
    training: the command that trained it.
    evaluation: the command that measured `measured`, the protocol's numbers as fractions, on `device`.
    limits: what it should not be used for, in a sentence.
    """

    data_set: str
    licence: str
    training: str
    evaluation: str
    device: str
    measured: dict[str, float]
    limits: str


def pretrained_names() -> list[str]:
    """What `pretrained` and --weights zoo:NAME know.

    >>> all(name.count("-") >= 1 for name in pretrained_names())
    True
    """
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def zoo_file(name: str) -> Path:
    """The weights file of zoo:`name`.

    Raises FileNotFoundError, with what there is, where there is no such weights.
    """
    if name not in pretrained_names():
        raise FileNotFoundError(
            f"{PREFIX}{name}: no such weights; there are {', '.join(pretrained_names()) or 'none'}"
        )
    return FOLDER / f"{name}.safetensors"


def card(name: str) -> Card:
    """The card of zoo:`name`, kept in its file; raises FileNotFoundError where there is no such weights."""
    with safe_open(zoo_file(name), framework="pt") as file:
        return Card(**json.loads(file.metadata()["card"]))


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and numbers, in the order of the names.

    >>> import torch
    >>> checksum({"a": torch.zeros(2)}) == checksum({"a": torch.zeros(2)}) != checksum({"a": torch.ones(2)})
    True
    """
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
