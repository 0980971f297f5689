"""What long training runs share: signals that end them, their progress, several processes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Checkpoint, RichProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException


class StopSignals(Checkpoint):
    """SIGTERM and Ctrl-C end training after the step that runs and its validation, with exit status 143 or 130.

    As a `Checkpoint` it is called after those that keep what a validation found, where it is the last of them.
    The run is saved to `checkpoint` first, within its epoch, unless that is None; a second signal ends it at once.
    """

    def __init__(self, checkpoint: Path | None) -> None:
        self.checkpoint, self.received = checkpoint, 0
        self.before: dict[int, Any] = {}
        self.group: dist.ProcessGroup | None = None

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.before[number] = signal.signal(number, self._note)
        if trainer.current_epoch == 0 and trainer.fit_loop.epoch_loop.batch_progress.current.ready:
            # Lightning began to load before it knew where in the first epoch the run had stopped.
            assert trainer.fit_loop._data_fetcher is not None
            iter(trainer.fit_loop._data_fetcher)

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        fit_loop = trainer.fit_loop
        assert fit_loop._data_fetcher is not None
        if not fit_loop.epoch_loop._should_check_val_fx(fit_loop._data_fetcher):
            self._stop_within_epoch(trainer)

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._stop_within_epoch(trainer)

    def _stop_within_epoch(self, trainer: L.Trainer) -> None:
        if not self._received_by_any(trainer) or trainer.is_last_batch:  # what ends an epoch belongs to it
            return
        if self.checkpoint is not None:
            trainer.save_checkpoint(self.checkpoint)
        raise SystemExit(128 + (self.received or signal.SIGTERM))

    def teardown(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        self._restore()

    def _received_by_any(self, trainer: L.Trainer) -> bool:
        """By any of the processes, which ask each other without their GPUs: these are some steps behind."""
        if trainer.world_size == 1:
            return self.received > 0
        if self.group is None:
            self.group = dist.new_group(backend="gloo")
        received = torch.tensor(self.received)
        dist.all_reduce(received, dist.ReduceOp.MAX, self.group)
        return bool(received)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        self.before = {}


class Progress(RichProgressBar):
    """A progress bar of loss and validation metrics alone, and of what the task itself has in `shown`."""

    def get_metrics(self, trainer: L.Trainer, task: L.LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, task)
        metrics.pop("v_num", None)
        return metrics | getattr(task, "shown", {})


def seed_everything(seed: int) -> None:
    """Seed every generator, in workers too; ValueError that names --recipe.seed where NumPy takes no such seed."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"--recipe.seed must be from 0 to {2**32 - 1}, got {seed}")
    L.seed_everything(seed, workers=True, verbose=False)


@contextmanager
def naming_accelerator(accelerator: str, devices: int | str = 1) -> Iterator[None]:
    """ValueError that names the option where Lightning finds no such accelerator, or not so many devices of it."""
    try:
        yield
    except MisconfigurationException as error:
        raise ValueError(
            f"--machine.accelerator {accelerator} (devices: {devices}) cannot be used here: {error}"
        ) from error


def placement(devices: int | str) -> dict[str, Any]:
    """Lightning's `devices` and `num_nodes`: those that torchrun has started, else `devices` of this machine."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return {"devices": devices}
    here, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    return {"devices": here, "num_nodes": world // here}
