"""The moving average of a network's weights, in their place wherever they are looked at or kept."""

from typing import Any

import lightning as L
import torch
from torch import Tensor


class Averaging(L.Callback):
    """Averages weights and batch statistics w over the steps, validates the average and leaves it.

        a_1 = w_1,   a_t = a_{t-1} + (w_t - a_{t-1}) / (share * total steps)

    The average stands in the network from the start to the end of every validation, so callbacks that keep weights
    then come before this one, and from the end of training. A checkpoint holds the weights themselves, and the
    average with this callback's state.

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the exponential
    form as in Tarvainen and Valpola, "Mean teachers", NeurIPS 2017.
    """

    def __init__(self, share: float) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"--recipe.average must be from 0 to 1, got {share}")
        self.share = share
        self.average: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average = state_dict["average"]

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.average = [tensor.to(task.device) for tensor in self.average]
        self.rate = 1 / max(1.0, self.share * int(trainer.estimated_stepping_batches))

    def on_train_batch_end(self, trainer: L.Trainer, task: L.LightningModule, *_: Any) -> None:
        if self.average:
            torch._foreach_lerp_(self.average, _averaged(task), self.rate)
        else:
            self.average = [tensor.clone() for tensor in _averaged(task)]

    def on_validation_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._exchange(task)

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._exchange(task)

    def on_train_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self._exchange(task)

    def _exchange(self, task: L.LightningModule) -> None:
        current = _averaged(task)
        before = [tensor.clone() for tensor in current]
        torch._foreach_copy_(current, self.average)
        torch._foreach_copy_(self.average, before)


def _averaged(task: L.LightningModule) -> list[Tensor]:
    """Parameters and buffers with a fraction."""
    tensors = [*task.parameters(), *task.buffers()]
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]
