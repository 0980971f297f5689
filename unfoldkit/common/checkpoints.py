"""What a training run leaves to go on from: checkpoints and weights that outlast faults, with their provenance."""

import io
import math
import random
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from unfoldkit import __version__
from unfoldkit.common.files import write_result
from unfoldkit.common.streaming import behind


class Checkpoints(TorchCheckpointIO):
    """Checkpoints that are on the disk whole or not at all; only tensors and plain values are read from them.

    A thread writes them as they were at the call, and makes the calls that `write(function, *arguments)` is given,
    in order, while training goes on; the trainer's end waits for it. An error of writing is raised by a later call
    or at that end. After it each call writes before it returns.
    """

    def __init__(self) -> None:
        self.writing = ExitStack()
        self.write: Callable[..., None] = self.writing.enter_context(behind())

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        self.write(_write_checkpoint, tree_map_only(Tensor, _on_host, checkpoint), Path(path))

    def teardown(self) -> None:
        self.write = _at_once
        self.writing.close()

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        return read_checkpoint(path, map_location)


def read_checkpoint(path: Any, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint of tensors and plain values alone; raises OSError, and ValueError that names the file."""
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch names no common base for what a damaged or hostile file raises
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: not a checkpoint of tensors and plain values ({reason})") from error


def _at_once(function: Callable[..., Any], *arguments: Any) -> None:
    function(*arguments)


def _on_host(tensor: Tensor) -> Tensor:
    """A copy, which no later step changes."""
    return tensor.detach().to("cpu", copy=True)


def _write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    content = io.BytesIO()
    torch.save(checkpoint, content)
    write_result(path, content.getvalue())


def best_and_last(folder: Path, monitor: str, mode: str, every: int = 1) -> list[ModelCheckpoint]:
    """Keep `folder`/best.ckpt by a metric ("min" or "max"), and last.ckpt of every so many epochs."""
    best = ModelCheckpoint(folder, "best", monitor, mode=mode, enable_version_counter=False)
    last = ModelCheckpoint(
        folder, "last", every_n_epochs=every, save_on_train_epoch_end=True, enable_version_counter=False
    )
    return [best, last]


class WeightsFiles(L.Callback):
    """Keeps `folder`/last.safetensors of every validation, and best.safetensors by a metric ("min" or "max").

    save: writes the weights of a copy of `net` to a path, in the thread of the trainer's `Checkpoints`.
    """

    def __init__(
        self, folder: Path, net: nn.Module, save: Callable[[Any, Path], None], monitor: str, mode: str
    ) -> None:
        self.folder, self.net, self.save, self.monitor = folder, net, save, monitor
        self.sign = {"min": -1, "max": 1}[mode]
        self.best = -math.inf

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        checkpoints = trainer.strategy.checkpoint_io
        assert isinstance(checkpoints, Checkpoints)
        net = deepcopy(self.net).cpu()
        checkpoints.write(self.save, net, self.folder / "last.safetensors")
        score = self.sign * trainer.callback_metrics[self.monitor].item()
        if score > self.best:
            self.best = score
            checkpoints.write(self.save, net, self.folder / "best.safetensors")


class Provenance(L.Callback):
    """Keeps the configuration, the version and the state of every random generator in each checkpoint.

    configuration: plain values. The order and augmentation of pictures need no generator's state, since they
    depend on (seed, epoch, index) alone, and the position in the epoch is the training loop's.
    """

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.configuration = configuration

    def state_dict(self) -> dict[str, Any]:
        numpy = np.random.get_state(legacy=False)  # noqa: NPY002 - the state of what others may use
        numpy["state"]["key"] = numpy["state"]["key"].tolist()
        return {
            "configuration": self.configuration,
            "version": __version__,
            "torch": torch.get_rng_state(),
            "numpy": numpy,
            "python": random.getstate(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        torch.set_rng_state(state_dict["torch"])
        np.random.set_state(state_dict["numpy"])  # noqa: NPY002
        version, state, gauss = state_dict["python"]
        random.setstate((version, tuple(state), gauss))
