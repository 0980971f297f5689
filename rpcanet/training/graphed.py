"""Training on a GPU that never waits for the host: whole steps as CUDA graphs, losses read when needed."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..inference.evaluation import answer
from ..inference.fast import optimize
from ..networks.unfolding import Unfolding
from .distributed import average
from .losses import decomposition_loss
from .task import LOSSES, SegmentationTask

PRECISIONS = ("32-true", "64-true", "bf16-mixed", "bf16-true")  # 16-mixed asks the host whether to step
GRAPHS = 4  # shapes of batches that have one
READ_EVERY = 256  # steps
COUNTED_AT_ONCE = 128  # pictures


class Replay(NamedTuple):
    """A recorded step: its graph, what it reads, what it leaves."""

    graph: torch.cuda.CUDAGraph
    image: Tensor
    mask: Tensor
    losses: Tensor
    gradients: list[Tensor | None]


class GraphedSteps:
    """`step(image, mask)`, which trains and returns what is worth knowing, replayed as a CUDA graph.

    The first batch of a shape is trained on eagerly, by the second the step is recorded; of more than GRAPHS
    shapes the others stay eager, and all do once a step cannot be recorded, which is logged as a warning. The
    learning rate is read from the optimizer at every step, the gradients of the last step are the parameters'
    `grad`. All graphs share their memory, so that what a step returns holds until the next.

    optimizer: of `step`, capturable, with one group of parameters.
    """

    def __init__(self, step: Callable[[Tensor, Tensor], Tensor], optimizer: torch.optim.Optimizer) -> None:
        self.step, self.optimizer = step, optimizer
        (self.group,) = optimizer.param_groups
        self.rate = torch.zeros((), device=self.group["params"][0].device)
        self.seen: set[torch.Size] = set()
        self.replays: dict[torch.Size, Replay] = {}
        self.most = GRAPHS
        self.pool: Any = None

    def __call__(self, image: Tensor, mask: Tensor) -> Tensor:
        shape = image.shape
        if shape in self.seen and shape not in self.replays and len(self.replays) < self.most:
            self._record(image, mask)
        self.seen.add(shape)
        if shape not in self.replays:
            return self.step(image, mask)
        replay = self.replays[shape]
        replay.image.copy_(image)
        replay.mask.copy_(mask)
        self.rate.fill_(self.group["lr"])
        replay.graph.replay()
        for parameter, gradient in zip(self.group["params"], replay.gradients, strict=True):
            parameter.grad = gradient
        return replay.losses

    def _record(self, image: Tensor, mask: Tensor) -> None:
        """Keep a replay of the step; where it cannot be recorded, no more than there are."""
        image, mask, graph = image.clone(), mask.clone(), torch.cuda.CUDAGraph()
        rate, self.group["lr"] = self.group["lr"], self.rate
        try:
            self.optimizer.zero_grad()
            with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
                losses = self.step(image, mask)
        except RuntimeError as error:
            self.most = len(self.replays)
            logging.getLogger(__name__).warning("steps are not replayed as CUDA graphs: %s", error)
            return
        finally:
            self.group["lr"] = rate
        self.pool = graph.pool()
        gradients = [parameter.grad for parameter in self.group["params"]]
        self.replays[image.shape] = Replay(graph, image, mask, losses, gradients)


class Taken(NamedTuple):
    """A step that was taken, whose losses are still on the device."""

    step: int
    epoch: int
    batch: int
    names: list[str]
    rate: float
    losses: Tensor


class Seen(NamedTuple):
    """A validation batch that was answered but not counted yet."""

    names: list[str]
    logits: Tensor
    mask: Tensor
    losses: Tensor


def evaluated(net: Unfolding, mixed: bool) -> Unfolding:
    """What answers for `net` in one validation, without autocast: in mixed precision its form of 16 bits."""
    if not mixed:
        return net.eval()
    fast = optimize(net, torch.bfloat16)
    fast.graphs.capacity = 0  # they would hardly be replayed before the weights change
    return fast


class GraphedTask(SegmentationTask):
    """`SegmentationTask` on GPUs: the same steps and the same numbers, from `GraphedSteps`.

    Over several, each with a process and a part of the batch, what they tell each other is part of the graphs.

    Losses are read back before every validation and every checkpoint, then logged and looked at: a step whose loss
    is not finite ends the run there. Validation pictures are answered by `evaluated` and counted many at a time.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.taken: list[Taken] = []
        self.shown: dict[str, float] = {}
        self.steps: GraphedSteps | None = None
        self.seen: list[Seen] = []

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        if self.steps is None:
            self.steps = GraphedSteps(self._whole_step, optimizer)
        rate = optimizer.param_groups[0]["lr"]
        losses = self.steps(batch.image, batch.mask).clone()
        self.taken.append(
            Taken(self.global_step, self.current_epoch, batch_index, list(batch.name), rate, losses)
        )
        if len(self.taken) == READ_EVERY:
            self._read()
        return losses[0]

    def _whole_step(self, image: Tensor, mask: Tensor) -> Tensor:
        loss = self.training_loss(image, mask)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        with torch.autocast("cuda", enabled=False):
            optimizer.zero_grad()
            loss.total.backward()
            losses = torch.stack(loss).detach()
            average([losses, *(p.grad for p in self.net.parameters() if p.grad is not None)])
            optimizer.step()
        return losses

    def backward(self, loss: Tensor, *_: Any, **__: Any) -> None:
        """Nothing: the step has done it."""

    def optimizer_zero_grad(self, *_: Any) -> None:
        """Nothing: the step has done it."""

    def optimizer_step(
        self, epoch: int, batch_index: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """The closure's step has updated the parameters, too."""
        assert optimizer_closure is not None
        optimizer_closure()

    def on_validation_epoch_start(self) -> None:
        mixed = self.trainer.precision == "bf16-mixed"
        self.answer = partial(answer, evaluated(self.net, mixed), padding=self.padding)
        self._read()  # last: until here the device may still be training

    def validation_step(self, batch: Any, batch_index: int) -> dict[str, Any]:
        with torch.autocast("cuda", enabled=False):
            decomposition = self.answer(batch.image)
        loss = decomposition_loss(decomposition, batch.image, batch.mask, self.fidelity_weight, self.loss)
        if self.seen and batch.mask.shape[1:] != self.seen[0].mask.shape[1:]:
            self._count()
        self.seen.append(Seen(list(batch.name), decomposition.object, batch.mask, torch.stack(loss)))
        if sum(len(seen.mask) for seen in self.seen) >= COUNTED_AT_ONCE:
            self._count()
        return decomposition._asdict()

    def on_validation_epoch_end(self) -> None:
        self._count()
        super().on_validation_epoch_end()

    def _count(self) -> None:
        seen, self.seen = self.seen, []
        if not seen:
            return
        logits, mask = torch.cat([batch.logits for batch in seen]), torch.cat([batch.mask for batch in seen])
        self.require_answers(logits, [name for batch in seen for name in batch.names])
        self.metrics.update(logits.sigmoid(), mask)
        self.selection.update(logits, mask)
        for batch, losses in zip(seen, torch.stack([batch.losses for batch in seen]).cpu(), strict=True):
            for name, value in zip(LOSSES, losses, strict=True):
                self.validation_losses[name].update(value, len(batch.mask))

    def teardown(self, stage: str) -> None:
        """Let go of the graphs: at the end of a process NCCL waits for every one that holds its collectives."""
        if self.steps is not None:
            self.steps.replays.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._read()

    def _read(self) -> None:
        """Fetch the losses of the steps taken, log them, and raise FloatingPointError where one is not finite."""
        taken, self.taken = self.taken, []
        if not taken:
            return
        for step, losses in zip(taken, torch.stack([step.losses for step in taken]).tolist(), strict=True):
            self.require_finite(losses[0], step.step, step.batch, step.epoch, step.names)
            if self.logger is not None and (step.step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
                values = {f"train/{name}": value for name, value in zip(LOSSES, losses, strict=True)}
                values |= {"train/learning_rate": step.rate, "epoch": float(step.epoch)}
                self.logger.log_metrics(values, step.step)
        self.shown = {"train/loss": losses[0]}
