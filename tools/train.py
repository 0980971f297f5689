"""Train RPCANet, RPCANet++ or LowRankRPCANet on a data set.

    python tools/train.py --config tools/configs/sirst.yaml --network.stages 6 --data.root DIR
    python tools/train.py --config runs/train/config.yaml --resume
    torchrun --nproc-per-node 2 tools/train.py --config tools/configs/sirst.yaml --data.root DIR

A configuration file is a recipe, tools/configs/ has one for each data set; every option of it can also be
given on the command line, after the file, to override it. In the folder --out the run leaves

    config.yaml                         the whole configuration
    best.safetensors, last.safetensors  weights for evaluate.py and predict.py, by validation IoU
    checkpoints/best.ckpt, last.ckpt    all that --resume needs; SIGTERM and Ctrl-C save last.ckpt, too
    tensorboard/                        losses, metrics, curves, pictures and stages: tensorboard --logdir runs
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from unfoldkit.common.configuration import configured, prepare_folder, run_parser
from unfoldkit.common.console import DataSetName, ProtocolName, keep_memory, one_line_errors, report_skipped


@dataclass
class Network:
    """The network to train.

    Args:
        name: rpcanet, rpcanet++ or lowrank.
        stages: number of unfolded stages.
        channels: feature channels C of every module.
    """

    name: Literal["rpcanet", "rpcanet++", "lowrank", "drpca_net", "l_rpcanet"] = "rpcanet++"
    stages: int = 6
    channels: int = 32


@dataclass
class Data:
    """The pictures and how they reach the network.

    Args:
        name: a published data set, folder (its layout is recognised) or synthetic (generated, needs no root).
        root: the data set's folder; tools/prepare_data.py says what it should hold.
        train_split: split to train on.
        validation_split: split to choose the best weights with.
        size: pictures are resized to this height and width, in pixels.
        crop: cut random windows of that size instead, half of them centred on an object pixel; validation is
            then on whole pictures.
        mean: grey level, 0 to 255, that is subtracted.
        std: grey level that is divided by.
        batch_size: pictures a step, at least 2; over several devices, of each.
        workers: processes that load pictures, of each device.
        train_count: number of generated training scenes (synthetic only).
        validation_count: number of generated validation scenes (synthetic only).
        skip_bad: leave out pictures that cannot be used, and list them; without it the first ends the run.
        keep_empty: train on pictures whose mask holds no object, too.
    """

    name: DataSetName = "synthetic"
    root: str | None = None
    train_split: str = "train"
    validation_split: str = "val"
    size: int = 256
    crop: bool = False
    mean: float = 0.0
    std: float = 255.0
    batch_size: int = 8
    workers: int = 2
    train_count: int = 400
    validation_count: int = 40
    skip_bad: bool = False
    keep_empty: bool = False


@dataclass
class Recipe:
    """How long and how fast to learn.

    Args:
        epochs: passes over the training pictures.
        learning_rate: Adam's rate at the first step; it decays as (1 - step/total)^0.9.
        fidelity_weight: weight of the restoration error in the loss.
        protocol: evaluation protocol for validation: overlap, centroid, vessel or defect.
        validate_every: epochs between validations.
        seed: of weights, order and augmentation.
    """

    epochs: int = 800
    learning_rate: float = 1e-4
    fidelity_weight: float = 0.01
    protocol: ProtocolName = "overlap"
    validate_every: int = 1
    seed: int = 42


@dataclass
class Machine:
    """What to compute on; see the options of lightning.Trainer.

    Args:
        accelerator: auto, cpu, gpu, ...
        devices: how many, or auto; torchrun decides it for the processes that it starts.
        precision: 32-true, bf16-mixed, 16-mixed, ...; where a processor has no instructions for the latter two it
            emulates them, several times slower than 32-true.
        compile: fuse elementwise steps with torch.compile; the first steps then take a minute or two.
        checkpointing: keep what passes between stages alone and compute each stage twice; memory then grows
            with one stage instead of all of them.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    precision: str = "32-true"
    compile: bool = False
    checkpointing: bool = False


@dataclass
class Configuration:
    """Everything that decides a run."""

    network: Network
    data: Data
    recipe: Recipe
    machine: Machine


def parser() -> ArgumentParser:
    return run_parser("train.py", __doc__, Configuration, "tools/configs/*.yaml", "runs/train")


def configuration_from(options: Namespace) -> Configuration:
    return configured(Configuration, options)


def train(configuration: Configuration, out: Path, resume: bool = False) -> None:
    """Train as configured; what is left in `out` is listed at the top of this file."""
    import lightning as L
    import torch
    from lightning.pytorch.loggers import TensorBoardLogger

    from unfoldkit import rpcanet
    from unfoldkit.common.runs import (
        Checkpoints,
        Provenance,
        StopSignals,
        WeightsFiles,
        best_and_last,
        placement,
    )
    from unfoldkit.rpcanet.training.distributed import over_processes
    from unfoldkit.rpcanet.training.task import Progress, SegmentationTask
    from unfoldkit.rpcanet.training.watching import Watch

    keep_memory()
    recipe, machine = configuration.recipe, configuration.machine
    last = out / "checkpoints" / "last.ckpt"
    prepare_folder(configuration, out, last, resume)
    L.seed_everything(recipe.seed, workers=True, verbose=False)
    data = open_data(configuration.data, recipe.seed)
    net = rpcanet.build(
        **asdict(configuration.network), mean=configuration.data.mean, std=configuration.data.std
    )
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types
    net.checkpointing = machine.checkpointing
    if machine.compile:
        net.compile_stages()
    stored = asdict(configuration)
    checkpoints = best_and_last(last.parent, "val/iou", "max")
    weights = WeightsFiles(out, lambda path: rpcanet.save_weights(net, path, stored), "val/iou", "max")
    faults = [Provenance(stored), StopSignals(last)]
    trainer = L.Trainer(
        accelerator=machine.accelerator,
        **placement(machine.devices),
        precision=machine.precision,  # type: ignore[arg-type]
        max_epochs=recipe.epochs,
        check_val_every_n_epoch=recipe.validate_every,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        benchmark=True,
        log_every_n_steps=min(10, len(data.train) // data.batch_size),
        enable_model_summary=False,
        callbacks=[*checkpoints, weights, Progress(), Watch(stored), *faults],
        plugins=[Checkpoints()],
        logger=TensorBoardLogger(out, name="", version="tensorboard", default_hp_metric=False),
    )
    if trainer.world_size > 1:
        over_processes(net)
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    print(
        f"Training {configuration.network.name} of {len(net.stages)} stages ({millions:.3f} M parameters) "
        f"on {len(data.train)} pictures, validating on {len(data.validation)}"
    )
    task = SegmentationTask(net, recipe.learning_rate, recipe.fidelity_weight, recipe.protocol)
    trainer.fit(task, data, ckpt_path=last if last.is_file() else None, weights_only=True)


def open_data(options: Data, seed: int) -> Any:
    from unfoldkit.datasets import SegmentationDataset, open_pictures
    from unfoldkit.datasets.datamodule import SegmentationData

    def samples(split: str, count: int, augment: bool) -> SegmentationDataset:
        pictures = open_pictures(
            options.name,
            split,
            options.root,
            count=count,
            size=options.size,
            seed=seed,
            skip_bad=options.skip_bad,
            keep_empty=options.keep_empty,
        )
        report_skipped(getattr(pictures, "skipped", ()))
        crop = options.crop and augment
        size = None if options.crop and not augment else options.size
        return SegmentationDataset(pictures, size, options.mean, options.std, augment, seed, crop)

    return SegmentationData(
        samples(options.train_split, options.train_count, augment=True),
        samples(options.validation_split, options.validation_count, augment=False),
        options.batch_size,
        options.workers,
        seed,
    )


def main() -> None:
    options = parser().parse_args()
    with one_line_errors("train.py"):
        train(configuration_from(options), Path(options.out), options.resume)


if __name__ == "__main__":
    main()
