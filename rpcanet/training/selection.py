"""Which weights of a run are its result: looks at the validation pictures, and what they found."""

from typing import Any, NamedTuple

import lightning as L
import torch
from torch import Tensor
from torchmetrics import Metric

MONITOR = "val/selection"
LOGGED = ("best", "last", "mean")
PATIENCE = 15  # epochs for which "nothing anywhere" is normal


class SelectionIoU(Metric):
    """IoU of the pixels with a logit above 0, over all pictures: what the authors choose their weights by.

        iou = sum(p m) / sum(max(p, m)),   p = logit > 0

    It is 0, not 1, where there is nothing to find and nothing is found. `anything` and `everything` say whether
    any pixel was found and whether all were.
    Shapes: logits and mask are (batch, 1, height, width); the mask's objects are what is above 0.

    >>> metric = SelectionIoU()
    >>> metric.update(torch.tensor([[[[-1.0, 2.0]]]]), torch.tensor([[[[1.0, 1.0]]]]))
    >>> metric.compute().item(), metric.anything, metric.everything
    (0.5, True, False)
    """

    full_state_update = False
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        # intersection, union, predicted pixels, pixels
        self.add_state("count", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, mask: Tensor) -> None:
        predicted, there = logits > 0, mask > 0
        planes = (predicted & there, predicted | there, predicted, torch.ones_like(predicted))
        self.count += torch.stack([plane.sum() for plane in planes])

    def compute(self) -> Tensor:
        return self.count[0] / self.count[1].clamp_min(1)

    @property
    def anything(self) -> bool:
        return bool(self.count[2] > 0)

    @property
    def everything(self) -> bool:
        return bool(self.count[2] == self.count[3])


class Looks(NamedTuple):
    """What the looks at the validation pictures found, as fractions.

    best: the largest, by which the papers choose.  last: of the last look.  mean: of the last tenth of the looks.
    looks: how many there were.
    """

    best: float
    last: float
    mean: float
    looks: int

    @classmethod
    def of(cls, values: list[float]) -> "Looks":
        """
        >>> Looks.of([0.1, 0.7, 0.5])
        Looks(best=0.7, last=0.5, mean=0.5, looks=3)
        """
        tail = values[-max(1, len(values) // 10) :]
        return cls(max(values), values[-1], sum(tail) / len(tail), len(values))


class Selection(L.Callback):
    """Looks at the validation pictures every `look_every` steps, where Lightning does and after the last epoch.

    values: val/selection of every look, in order; a resumed run goes on with them, and logs what they come to
    as looks/best, looks/last and looks/mean. A network that finds nothing anywhere is told of once at first, where
    that is normal, and once more where it is not any longer, as is one that then finds an object everywhere.
    """

    def __init__(self, look_every: int) -> None:
        self.look_every = look_every
        self.values: list[float] = []
        self.told = 0

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values, "told": self.told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values, self.told = state_dict["values"], state_dict["told"]

    def on_fit_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        loop = trainer.fit_loop.epoch_loop
        regular, due = loop._should_check_val_epoch, loop._should_check_val_fx
        loop._should_check_val_epoch = lambda: (  # type: ignore[method-assign]
            regular() or trainer.current_epoch + 1 == trainer.max_epochs
        )
        if self.look_every:
            loop._should_check_val_fx = lambda data_fetcher: (  # type: ignore[method-assign]
                due(data_fetcher) or (loop.total_batch_idx + 1) % self.look_every == 0
            )

    def on_validation_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        self.values.append(trainer.callback_metrics[MONITOR].item())
        if trainer.logger is not None:
            found = self.looks._asdict()
            trainer.logger.log_metrics({f"looks/{name}": found[name] for name in LOGGED}, trainer.global_step)
        late = trainer.current_epoch >= PATIENCE
        nothing = not trainer.callback_metrics["val/anything"]
        everything = trainer.callback_metrics["val/everything"]
        if (nothing or (late and everything)) and self.told < 1 + late:
            self.told = 1 + late
            if trainer.is_global_zero:
                print((NOTHING if nothing else EVERYTHING) if late else NORMAL, flush=True)

    @property
    def looks(self) -> Looks:
        return Looks.of(self.values)


NORMAL = f"No pixel is found anywhere yet; that is normal for the first {PATIENCE} epochs or so."
NOTHING = (
    f"Warning: after {PATIENCE} epochs still no pixel is found anywhere. Where most pictures hold no object, "
    "--recipe.loss batch_iou --recipe.learning_rate 5e-4 learns; else look at the masks (tools/prepare_data.py)."
)
EVERYTHING = (
    f"Warning: after {PATIENCE} epochs every pixel is found an object, where the published loss has next to no "
    "gradient. --recipe.loss batch_iou keeps one; another --recipe.seed may start elsewhere."
)
