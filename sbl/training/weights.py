"""Weights of unfolded estimators in safetensors files."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from unfoldkit.common.files import write_whole
from unfoldkit.common.weights import require_finite

from ..estimators.unfolded import UnfoldedKroSBL

FORMAT = "unfoldkit-estimator"
# What files say nothing of whose estimator had one form.
FIRST_FORM = {"as_published": True}


def save_estimator(net: UnfoldedKroSBL, path: str | Path, training: dict[str, Any] | None = None) -> None:
    """Write `net` with its architecture and `training`, the configuration (JSON values) it was trained with.

    Raises OSError where it cannot be written; what was there before then stays.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "estimator.safetensors"
    >>> save_estimator(UnfoldedKroSBL(iterations=3), path)
    >>> load_estimator(path).architecture["iterations"]
    3
    """
    metadata = {
        "format": FORMAT,
        "architecture": json.dumps(net.architecture),
        "training": json.dumps(training or {}),
    }
    tensors = {key: tensor.contiguous() for key, tensor in net.state_dict().items()}
    write_whole(path, save(tensors, metadata))


def load_estimator(path: str | Path) -> UnfoldedKroSBL:
    """The estimator that `save_estimator` wrote to `path`, on the CPU, its parameters fixed.

    Raises FileNotFoundError where there is no such file, ValueError where it holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected weights of tools/train_estimator.py")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error})") from error
    if metadata.get("format") != FORMAT:
        raise ValueError(f"{path}: expected weights of tools/train_estimator.py, found {metadata}")
    try:
        with torch.device("meta"):  # nothing is allocated before the tensors are known to fit
            net = UnfoldedKroSBL(**FIRST_FORM | json.loads(metadata.get("architecture", "")))
    except (TypeError, ValueError, RuntimeError, RecursionError) as error:
        raise ValueError(f"{path}: describes no UnfoldedKroSBL ({error})") from error
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ValueError(f"{path}: the tensors do not fit UnfoldedKroSBL: {error}") from error
    require_finite(net, path)
    return net.eval().requires_grad_(False)
