"""What long training runs share: checkpoints that outlast faults, signals that end them, several processes."""

import io
import math
import os
import random
import signal
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.plugins import TorchCheckpointIO

from unfoldkit.common.files import write_whole


class Checkpoints(TorchCheckpointIO):
    """Checkpoints that are on the disk whole or not at all; only tensors and plain values are read from them."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        content = io.BytesIO()
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except OSError:
            raise
        except Exception as error:  # torch names no common base for what a damaged or hostile file raises
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(f"{path}: not a checkpoint of tensors and plain values ({reason})") from error


def best_and_last(folder: Path, monitor: str, mode: str) -> list[ModelCheckpoint]:
    """Keep `folder`/best.ckpt by a metric ("min" or "max"), and last.ckpt of every epoch, better or not."""
    best = ModelCheckpoint(folder, "best", monitor, mode=mode, enable_version_counter=False)
    last = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    return [best, last]


class WeightsFiles(L.Callback):
    """Keeps `folder`/last.safetensors of every validation, and best.safetensors by a metric ("min" or "max").

    save: writes the weights to a path.
    """

    def __init__(self, folder: Path, save: Callable[[Path], None], monitor: str, mode: str) -> None:
        self.folder, self.save, self.monitor = folder, save, monitor
        self.sign = {"min": -1, "max": 1}[mode]
        self.best = -math.inf

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self.save(self.folder / "last.safetensors")
        score = self.sign * trainer.callback_metrics[self.monitor].item()
        if score > self.best:
            self.best = score
            self.save(self.folder / "best.safetensors")


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
            "version": own_version(),
            "torch": torch.get_rng_state(),
            "numpy": numpy,
            "python": random.getstate(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        torch.set_rng_state(state_dict["torch"])
        np.random.set_state(state_dict["numpy"])  # noqa: NPY002
        version, state, gauss = state_dict["python"]
        random.setstate((version, tuple(state), gauss))


class StopSignals(L.Callback):
    """SIGTERM and Ctrl-C end training after the step that runs, with exit status 143 or 130.

    The run is saved to `checkpoint` first, within its epoch, unless that is None; a second signal ends it at once.
    """

    def __init__(self, checkpoint: Path | None) -> None:
        self.checkpoint, self.received = checkpoint, 0
        self.before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.before[number] = signal.signal(number, self._note)
        if trainer.current_epoch == 0 and trainer.fit_loop.epoch_loop.batch_progress.current.ready:
            # Lightning began to load before it knew where in the first epoch the run had stopped.
            assert trainer.fit_loop._data_fetcher is not None
            iter(trainer.fit_loop._data_fetcher)

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        received = trainer.strategy.reduce_boolean_decision(self.received > 0, all=False)  # by any process
        if not received or trainer.is_last_batch:  # the validation after the last batch belongs to it
            return
        if self.checkpoint is not None:
            trainer.save_checkpoint(self.checkpoint)
        raise SystemExit(128 + (self.received or signal.SIGTERM))

    def teardown(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


class Progress(RichProgressBar):
    """A progress bar of loss and validation metrics alone."""

    def get_metrics(self, trainer: L.Trainer, task: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, task)
        metrics.pop("v_num", None)
        return metrics


def placement(devices: int | str) -> dict[str, Any]:
    """Lightning's `devices` and `num_nodes`: those that torchrun has started, else `devices` of this machine."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {"devices": devices}
    here, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return {"devices": here, "num_nodes": world // here}


def own_version() -> str:
    try:
        return version("unfoldkit")
    except PackageNotFoundError:
        return "not installed"
