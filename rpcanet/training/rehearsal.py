"""What a first step would wait for, done while pictures are read."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from copy import deepcopy

import lightning as L
import torch

from ..inside.interpretation import Interior, interior_measures
from ..networks.unfolding import UnfoldedNetwork
from .graphed import evaluated
from .losses import decomposition_loss
from .task import SegmentationTask

PRECISIONS = ("32-true", "bf16-mixed")


class Rehearsal(L.Callback):
    """On one GPU, has kernels compiled, loaded and chosen while a thread reads the pictures.

    It rehearses in the thread that will train, since PyTorch keeps what cuDNN chose for each thread alone.

    shapes: of the batches that will come.  read: reads the pictures.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], read: Callable[[], object]) -> None:
        self.shapes, self.read = shapes, read

    def setup(self, trainer: L.Trainer, task: L.LightningModule, stage: str) -> None:
        device = trainer.strategy.root_device
        if device.type != "cuda" or trainer.world_size > 1 or trainer.precision not in PRECISIONS:
            return
        assert isinstance(task, SegmentationTask)
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(self.read)
            rehearse(deepcopy(task.net), self.shapes, device, trainer.precision == "bf16-mixed")
            reading.result()


def rehearse(
    net: UnfoldedNetwork, shapes: Sequence[tuple[int, ...]], device: torch.device, mixed: bool
) -> None:
    """A step, an answer and a look inside for each shape, of pictures without content; `net` is used up."""
    net = net.to(device)
    with suppress(torch.cuda.OutOfMemoryError), torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        for shape in shapes:
            image = torch.zeros(shape, device=device)
            decomposition_loss(net.train()(image), image, image).total.backward()
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                stages = evaluated(net, mixed)(image, return_stages=True).stages
                interior_measures(image, Interior(stages))
