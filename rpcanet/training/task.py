"""Training with Lightning: the published recipe, its metrics and its pictures."""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import PolynomialLR
from torchmetrics import MeanMetric, MetricCollection

from ...datasets.records import padding_of
from ..inference.evaluation import answer
from ..metrics import protocol
from ..names import LossName
from ..networks.unfolding import UnfoldedNetwork
from .losses import DecompositionLoss, decomposition_loss
from .selection import MONITOR, SelectionIoU

LOSSES = ("loss", "soft_iou", "fidelity")


class SegmentationTask(L.LightningModule):
    """Trains `net` as published and watches it with an evaluation protocol.

    loss = SoftIoU(sigmoid(O_K), mask) + fidelity_weight * MSE(D_K, D_0), minimised by Adam at the rate
    learning_rate * (1 - step / total steps)^0.9.

    loss: names another first part, see `decomposition_loss`.

    Logged: train/loss, train/soft_iou, train/fidelity, train/learning_rate; val/loss, val/soft_iou, val/fidelity,
    val/selection (`SelectionIoU`) and, as val/NAME, every scalar of the protocol.
    `rpcanet.training.watching.Watch` shows what happens inside.

    Source: Wu et al., "RPCANet", WACV 2024, section 4.1.
    """

    def __init__(
        self,
        net: UnfoldedNetwork,
        learning_rate: float = 1e-4,
        fidelity_weight: float = 0.01,
        protocol_name: str = "overlap",
        loss: LossName = "soft_iou",
    ) -> None:
        super().__init__()
        self.net = net
        self.learning_rate, self.fidelity_weight, self.loss = learning_rate, fidelity_weight, loss
        self.padding, self.metrics = padding_of(protocol_name), protocol(protocol_name)
        self.selection = SelectionIoU()
        # means over pictures, of which processes may have more or fewer
        self.validation_losses = MetricCollection(
            {name: MeanMetric() for name in LOSSES}, compute_groups=False
        )

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        loss = self.training_loss(batch.image, batch.mask)
        for name, value in zip(LOSSES, loss, strict=True):
            self.log(f"train/{name}", value.detach(), prog_bar=name == "loss")
        self.log("train/learning_rate", self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        self.require_finite(
            loss.total.item(), self.global_step, batch_index, self.current_epoch, list(batch.name)
        )
        return loss.total

    def training_loss(self, image: Tensor, mask: Tensor) -> DecompositionLoss:
        return decomposition_loss(self.net(image), image, mask, self.fidelity_weight, self.loss)

    @staticmethod
    def require_finite(loss: float, step: int, batch: int, epoch: int, names: list[str]) -> None:
        """FloatingPointError where a step's loss is not finite."""
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {step}, batch {batch} of epoch {epoch}, pictures: {', '.join(names)}"
            )

    @staticmethod
    def require_answers(logits: Tensor, names: list[str]) -> None:
        """FloatingPointError where the answer to a picture is not finite."""
        finite = logits.isfinite().flatten(1).all(1).tolist()
        if not all(finite):
            beyond = [name for name, there in zip(names, finite, strict=True) if not there]
            raise FloatingPointError(f"in validation the answers to {', '.join(beyond)} are not finite")

    def on_validation_model_zero_grad(self) -> None:
        """Keep the last step's gradients, which `rpcanet.training.watching.Watch` shows."""

    def validation_step(self, batch: Any, batch_index: int) -> dict[str, Any]:
        decomposition = answer(self.net, batch.image, self.padding)
        self.require_answers(decomposition.object, list(batch.name))
        loss = decomposition_loss(decomposition, batch.image, batch.mask, self.fidelity_weight, self.loss)
        for name, value in zip(LOSSES, loss, strict=True):
            self.validation_losses[name].update(value, len(batch.image))
        self.metrics.update(decomposition.object.sigmoid(), batch.mask)
        self.selection.update(decomposition.object, batch.mask)
        return decomposition._asdict()

    def on_validation_epoch_end(self) -> None:
        values = {name: value for name, value in self.metrics.compute().items() if value.ndim == 0}
        for name, value in self.validation_losses.compute().items():
            self.log(f"val/{name}", value)
        self.validation_losses.reset()
        for name, value in values.items():
            self.log(f"val/{name}", value.float(), prog_bar=name in ("iou", "pd"))
        self.metrics.reset()
        self.log(MONITOR, self.selection.compute(), prog_bar=True)
        self.log("val/anything", float(self.selection.anything))
        self.log("val/everything", float(self.selection.everything))
        self.selection.reset()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        on_gpu = self.device.type == "cuda"
        optimizer = torch.optim.Adam(
            self.net.parameters(), lr=self.learning_rate, fused=True, capturable=on_gpu
        )
        total = int(self.trainer.estimated_stepping_batches)
        decay = PolynomialLR(optimizer, total, power=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}
