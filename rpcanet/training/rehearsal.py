"""What a first step would wait for, done while a run is being prepared."""

from collections.abc import Sequence
from contextlib import suppress
from copy import deepcopy
from threading import Thread

import lightning as L
import torch

from ..inside.interpretation import Interior, interior_measures
from ..networks.unfolding import UnfoldedNetwork
from .losses import decomposition_loss
from .task import SegmentationTask

PRECISIONS = ("32-true", "bf16-mixed")


class Rehearsal(L.Callback):
    """On one GPU, has kernels compiled, loaded and chosen in a thread while pictures are read.

    shapes: of the batches that will come.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self.shapes = shapes
        self.thread: Thread | None = None

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        device = trainer.strategy.root_device
        if device.type != "cuda" or trainer.world_size > 1 or trainer.precision not in PRECISIONS:
            return
        assert isinstance(task, SegmentationTask)
        mixed = trainer.precision == "bf16-mixed"
        self.thread = Thread(
            target=rehearse, args=(deepcopy(task.net), self.shapes, device, mixed), daemon=True
        )
        self.thread.start()

    def on_train_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        if self.thread is not None:
            self.thread.join()


def rehearse(
    net: UnfoldedNetwork, shapes: Sequence[tuple[int, ...]], device: torch.device, mixed: bool
) -> None:
    """A step, an answer and a look inside for each shape, of pictures without content; `net` is used up."""
    net = net.to(device)
    with suppress(torch.cuda.OutOfMemoryError), torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        for shape in shapes:
            image = torch.zeros(shape, device=device)
            decomposition_loss(net.train()(image), image, image).total.backward()
            with torch.no_grad():
                interior_measures(image, Interior(net.eval()(image, return_stages=True).stages))
