"""Training and validation batches for Lightning, the same whether a run is resumed or not."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, TypeAlias

import lightning as L
import torch
from torch.utils.data import DataLoader, DistributedSampler, Sampler, default_collate

from .preparation import SegmentationDataset, Turn, require_one_size
from .reading.picture import Sample
from .resident import Order, ResidentBatches, ResidentPictures, fits, resident_bytes

Batches: TypeAlias = DataLoader[Sample] | ResidentBatches


class Rest(Sampler[Turn]):
    """The epoch's turns in the order of `sampler`, after its first `skipped()`; as long as the whole epoch."""

    def __init__(self, sampler: DistributedSampler[Any], skipped: Callable[[], int]) -> None:
        self.sampler, self.skipped = sampler, skipped

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Turn]:
        return map(partial(Turn, self.sampler.epoch), islice(iter(self.sampler), self.skipped(), None))


def of_one_size(samples: list[Sample]) -> Sample:
    """One batch; raises ValueError where the samples differ in size."""
    require_one_size((sample.name, *sample.image.shape[-2:]) for sample in samples)
    batch: Sample = default_collate(samples)
    return batch


class SegmentationData(L.LightningDataModule):
    """Batches of `train` and `validation`.

    The order and augmentation of an epoch depend on (seed, epoch) alone, so that a resumed run sees what an
    uninterrupted one would have; train with `reload_dataloaders_every_n_epochs=1`. The last incomplete batch
    of an epoch is trained on too, unless `keep_last` is off or it is a single picture, on which batch norm cannot
    train: that is left to another epoch's order. Over several processes the training batches are dealt out evenly,
    none twice, and each validation picture is seen once. A run resumed within an epoch goes on with the batch
    after its last. Pictures are decoded once and kept where memory allows (`SegmentationDataset.keep`); on a GPU
    they then lie in its memory, where that has room (`ResidentPictures`), and need no workers. Where there are
    workers, they stay from epoch to epoch.

    Raises ValueError where `batch_size`, over all processes, exceeds the number of training pictures. A batch of
    pictures of different sizes raises it, too.
    """

    def __init__(
        self,
        train: SegmentationDataset,
        validation: SegmentationDataset,
        batch_size: int = 8,
        workers: int = 2,
        seed: int = 42,
        keep_last: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= batch_size <= len(train):
            raise ValueError(
                f"batch_size must be from 1 to the {len(train)} training pictures, got {batch_size}; "
                "--data.batch_size sets it"
            )
        self.train, self.validation = train, validation
        self.batch_size, self.workers, self.seed, self.keep_last = batch_size, workers, seed, keep_last
        self.batches: dict[str, Batches] = {}

    def read(self) -> None:
        """Decode all pictures now, where memory allows; raises what reading a picture raises."""
        self.train.keep()
        self.validation.keep()

    def train_dataloader(self) -> Batches:
        world, rank, epoch = self._position()
        if world * self.batch_size > len(self.train):
            raise ValueError(
                f"batch_size must be at most {len(self.train)} training pictures / {world} processes, "
                f"got {self.batch_size}"
            )
        if "train" not in self.batches:
            self.sampler = DistributedSampler[Any](
                self.train, num_replicas=world, rank=rank, shuffle=True, seed=self.seed, drop_last=True
            )
            batches, left = divmod(len(self.sampler), self.batch_size)
            keep_last = self.keep_last and left > 1
            batches += keep_last
            rest = Rest(self.sampler, lambda: self._batches_done() % batches * self.batch_size)
            self.batches["train"] = self._loaded(self.train, rest, self.batch_size, not keep_last)
        self.sampler.set_epoch(epoch)
        return self.batches["train"]

    def val_dataloader(self) -> Batches:
        world, rank, _ = self._position()
        if "validation" not in self.batches:
            mine = [Turn(0, index) for index in range(rank, len(self.validation), world)]
            together = 1 if self.validation.size is None else self.batch_size  # pictures of their own sizes
            self.batches["validation"] = self._loaded(self.validation, mine, together)
        return self.batches["validation"]

    def _loaded(
        self, dataset: SegmentationDataset, order: Order, batch_size: int, drop_last: bool = False
    ) -> Batches:
        dataset.keep()
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if fits(dataset, device):
            if self._position()[1] == 0:
                mebibytes = resident_bytes(dataset) / 2**20
                print(
                    f"{len(dataset)} pictures stay in the memory of the GPU: {mebibytes:.0f} MiB", flush=True
                )
            return ResidentBatches(ResidentPictures(dataset, device), order, batch_size, drop_last)
        return DataLoader(
            dataset,
            batch_size,
            sampler=order,
            collate_fn=of_one_size,
            num_workers=self.workers,
            drop_last=drop_last,
            persistent_workers=self.workers > 0,
            pin_memory=device.type == "cuda",
        )

    def _batches_done(self) -> int:
        """Batches of this epoch that the run took before it was resumed, or of the epoch that has ended."""
        return 0 if self.trainer is None else self.trainer.fit_loop.epoch_loop.batch_progress.current.ready

    def _position(self) -> tuple[int, int, int]:
        """Number of processes, which one this is, and the epoch."""
        if self.trainer is None:
            return 1, 0, 0
        return self.trainer.world_size, self.trainer.global_rank, self.trainer.current_epoch
