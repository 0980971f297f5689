"""Training an unfolded estimator on simulated channels, with Lightning."""

from collections.abc import Sequence
from typing import NamedTuple

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import PolynomialLR
from torch.utils.data import DataLoader, Dataset

from ..estimators.unfolded import UnfoldedKroSBL
from ..simulation.experiments import trial_generator
from ..simulation.metrics import channel_nmse
from ..systems import IRSMIMO, observe
from ..systems.irs_mimo import Training


class ChannelBatch(NamedTuple):
    """T channels to estimate, each with pilots and patterns of its own; snr_db (T,)."""

    factors: tuple[Tensor, Tensor, Tensor]
    training: Training
    cascade: Tensor  # (T, K_I, bs, ms)
    y: Tensor  # (T, M)
    noise_variance: Tensor  # (T,)
    snr_db: Tensor


def draw_batch(
    system: IRSMIMO, snr_db: tuple[float, float], trials: int, generator: torch.Generator
) -> ChannelBatch:
    """Fresh channels, pilots, patterns and noise; SNRs uniform between the two of `snr_db`.

    >>> batch = draw_batch(IRSMIMO(dtype=torch.complex64), (4.0, 20.0), 3, torch.Generator().manual_seed(0))
    >>> batch.y.shape, batch.snr_db.shape
    (torch.Size([3, 288]), torch.Size([3]))
    """
    each = [system.draw_training(generator) for _ in range(trials)]
    training = Training(*(torch.stack(parts) for parts in zip(*each, strict=True)))
    channel = system.draw_channels([generator] * trials)
    noise = torch.stack([system.draw_noise(generator) for _ in range(trials)])
    low, high = snr_db
    snr = low + (high - low) * torch.rand(trials, generator=generator)
    y, s2 = observe(system.received(channel, training), noise, snr)
    return ChannelBatch(system.factors(training), training, system.cascade(channel, training), y, s2, snr)


class ChannelBatches(Dataset):
    """`count` batches; batch n of the stream `stream` depends on the seed and on first + n alone."""

    def __init__(
        self,
        system: IRSMIMO,
        snr_db: Sequence[tuple[float, float]],
        trials: int,
        seed: int,
        stream: str,
        count: int,
        first: int = 0,
    ) -> None:
        self.system, self.snr_db, self.trials = system, snr_db, trials
        self.seed, self.stream, self.count, self.first = seed, stream, count, first

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, n: int) -> ChannelBatch:
        if n >= self.count:
            raise IndexError(n)
        generator = trial_generator(self.seed, self.stream, self.first + n)
        return draw_batch(self.system, self.snr_db[n % len(self.snr_db)], self.trials, generator)


class SimulatedChannels(L.LightningDataModule):
    """New training batches every epoch, the same validation batches always: one for each of `validation_snr`."""

    def __init__(
        self,
        system: IRSMIMO,
        snr_db: tuple[float, float],
        batch_size: int,
        steps: int,
        validation_snr: Sequence[float],
        validation_trials: int,
        workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.system, self.snr_db, self.batch_size, self.steps = system, snr_db, batch_size, steps
        self.workers, self.seed = workers, seed
        points = [(snr, snr) for snr in validation_snr]
        self.validation = ChannelBatches(system, points, validation_trials, seed, "validation", len(points))

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        first = self.trainer.current_epoch * self.steps
        batches = ChannelBatches(
            self.system, [self.snr_db], self.batch_size, self.seed, "batch", self.steps, first
        )
        return DataLoader(batches, batch_size=None, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.validation, batch_size=None)


class EstimationTask(L.LightningModule):
    """Trains `net` to estimate the cascaded channels of `system`.

    loss = mean over trials of log(NMSE + robustness), by Adam at learning_rate (1 - step / total steps)^0.9 and
    gradients of norm 1 at most. The logarithm weighs all SNRs alike; `robustness` decides what a failed trial
    weighs beside a better estimate of one that has not failed.

    Logged: train/loss, train/learning_rate, train/left_out (1 for a step whose gradient overflowed and was not
    taken); val/nmse_SNR, the mean NMSE at each validation SNR, and val/nmse_db,
    the mean over SNRs of 10 log10 of it. Source of the NMSE: `sbl.simulation.metrics.channel_nmse`.
    """

    def __init__(self, net: UnfoldedKroSBL, system: IRSMIMO, learning_rate: float, robustness: float) -> None:
        super().__init__()
        self.net, self.system = net, system
        self.learning_rate, self.robustness = learning_rate, robustness

    def nmse(self, batch: ChannelBatch) -> Tensor:
        """NMSE of the cascaded channel of each trial: (T,)."""
        estimate = self.net(batch.factors, batch.y, batch.noise_variance)
        return channel_nmse(self.system.channel_of(estimate.mean, batch.training), batch.cascade)

    def training_step(self, batch: ChannelBatch, batch_index: int) -> Tensor:
        loss = (self.nmse(batch) + self.robustness).log().mean()
        size = len(batch.y)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=size)
        rate = self.optimizers().param_groups[0]["lr"]  # type: ignore[union-attr]
        self.log("train/learning_rate", rate, batch_size=size)
        if not loss.isfinite():
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {self.global_step}, batch {batch_index} of epoch "
                f"{self.current_epoch}"
            )
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """A step whose gradient overflows is left out: Adam passes over parameters without gradient."""
        gradients = [p.grad for p in self.net.parameters() if p.grad is not None]
        overflows = not torch.stack([g.isfinite().all() for g in gradients]).all()
        self.log("train/left_out", float(overflows))
        if overflows:
            optimizer.zero_grad(set_to_none=True)

    def on_validation_epoch_start(self) -> None:
        self.decibels: list[Tensor] = []

    def validation_step(self, batch: ChannelBatch, batch_index: int) -> None:
        nmse = self.nmse(batch).mean()
        self.decibels.append(10 * nmse.log10())
        self.log(f"val/nmse_{batch.snr_db[0].item():g}dB", nmse, batch_size=len(batch.y))

    def on_validation_epoch_end(self) -> None:
        self.log("val/nmse_db", torch.stack(self.decibels).mean(), prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.learning_rate)
        total = int(self.trainer.estimated_stepping_batches)
        decay = PolynomialLR(optimizer, total, power=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}
