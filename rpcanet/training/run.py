"""A training run from its configuration to the folder that it leaves."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import Strategy
from torch.utils.data import Subset

from unfoldkit.common.checkpoints import Checkpoints, Provenance, WeightsFiles, best_and_last
from unfoldkit.common.configuration import keep_configuration, require_folder
from unfoldkit.common.console import keep_memory, report_skipped
from unfoldkit.common.files import write_whole
from unfoldkit.common.runs import Progress, StopSignals, naming_accelerator, placement, seed_everything

from ...datasets import Pictures, SegmentationDataset, open_pictures
from ...datasets.datamodule import SegmentationData
from ...datasets.reading.levels import levels_of
from ...datasets.records import record_of
from ..modules.dcpm import ChannelGate
from ..networks.unfolding import UnfoldedNetwork
from ..networks.weights import build, load_weights, name_of, save_weights
from .configuration import Configuration, Data, Recipe, settled
from .distributed import over_processes
from .graphed import PRECISIONS as GRAPHED
from .graphed import GraphedTask
from .rehearsal import Rehearsal
from .resuming import last_checkpoint, left_finished
from .selection import MONITOR, Selection
from .task import SegmentationTask
from .watching import Watch

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true")


def train(
    configuration: Configuration,
    out: str | Path,
    resume: bool = False,
    callbacks: Sequence[L.Callback] = (),
) -> UnfoldedNetwork:
    """Train a network as configured; returns it with the weights of the last step, in evaluation mode.

    `out` then holds

        config.yaml                         the whole configuration
        best.safetensors, last.safetensors  weights, best by `SelectionIoU` of the validation pictures
        checkpoints/best.ckpt, last.ckpt    all that `resume` needs; SIGTERM and Ctrl-C save last.ckpt, too
        run.json                            configuration, what the looks found, their curve, seconds and device
        tensorboard/                        losses, metrics, curves, pictures and stages

    resume: continue the run in `out`; one that is finished stays as it is.
    callbacks: Lightning's, called before the run's own.

    Raises ValueError where `out` holds another run, or one and `resume` is false, FileNotFoundError where there
    is none to resume, FloatingPointError where a loss or an answer in validation is not finite, and what opening
    the data raises.

    >>> import tempfile
    >>> from unfoldkit.rpcanet.training.configuration import Configuration, Data, Machine, Network, Recipe
    >>> data = Data(size=32, train_count=4, validation_count=2, batch_size=2, workers=0)
    >>> configuration = Configuration(Network("rpcanet", 1, 4), data, Recipe(epochs=1), Machine("cpu"))
    >>> net = train(configuration, tempfile.mkdtemp() + "/run")
    Training rpcanet of 1 stages ...
    >>> net.architecture["stages"]
    1
    """
    keep_memory()
    configuration, out = as_initialised(settled(configuration)), Path(out)
    require_precision(configuration.machine.precision)
    require_counts(configuration)
    last = last_checkpoint(out)
    require_folder(configuration, out, last, resume)
    seed_everything(configuration.recipe.seed)
    data = open_data(configuration.data, configuration.recipe)
    chosen, configuration = configuration, lengthened(configuration, len(data.train))
    if left_finished(out, configuration.recipe.epochs, asdict(configuration)):
        print(f"{out}: the run is finished, and stays as it is")
        return load_weights(out / "last.safetensors")
    net = untrained(configuration)
    require_several(configuration, net)
    selection, timer = Selection(configuration.recipe.look_every), Timer()
    with naming_accelerator(configuration.machine.accelerator, configuration.machine.devices):
        trainer = trainer_of(configuration, net, data, out, selection, [*callbacks, timer])
    keep_configuration(chosen, out)
    kind = GraphedTask if graphed(trainer, configuration.machine.precision) else SegmentationTask
    if trainer.world_size > 1:
        over_processes(net)
        if kind is GraphedTask:
            leave_gradients(trainer.strategy)
    millions = sum(parameter.numel() for parameter in net.parameters()) / 1e6
    print(
        f"Training {configuration.network.name} of {len(net.stages)} stages ({millions:.3f} M parameters) "
        f"on {len(data.train)} pictures, validating on {len(data.validation)}"
    )
    recipe = configuration.recipe
    task = kind(net, recipe.learning_rate, recipe.fidelity_weight, recipe.protocol, recipe.loss)
    try:
        trainer.fit(task, data, ckpt_path=last if last.is_file() else None, weights_only=True)
    finally:  # by Lightning itself only after a run that ended well
        task.teardown("fit")
    net.record = asdict(configuration)
    if trainer.is_global_zero:
        device = device_name(trainer.strategy.root_device)
        several = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
        taken = {"seconds": round(timer.time_elapsed()), "device": several + device}
        report(selection, out, asdict(configuration), taken)
    return net.eval()


def as_initialised(configuration: Configuration) -> Configuration:
    """The configuration with the name and the sizes of the network that it starts from."""
    network = configuration.network
    if network.init is None:
        return configuration
    net = load_weights(network.init)
    known: dict[str, Any] = {"name": name_of(net), "stages": len(net.stages), "channels": net.channels}
    return replace(configuration, network=replace(network, **known))


def lengthened(configuration: Configuration, pictures: int) -> Configuration:
    """The configuration with as many epochs of so many training pictures as its least steps take.

    >>> from unfoldkit.rpcanet.training.configuration import Data, Machine, Network, Recipe
    >>> short = Configuration(Network(), Data(batch_size=4), Recipe(epochs=400, least_steps=10_000), Machine())
    >>> lengthened(short, pictures=20).recipe.epochs, lengthened(short, pictures=341).recipe.epochs
    (2000, 400)
    """
    recipe = configuration.recipe
    epochs = -(-recipe.least_steps // (pictures // configuration.data.batch_size))
    return replace(configuration, recipe=replace(recipe, epochs=max(recipe.epochs, epochs)))


def untrained(configuration: Configuration) -> UnfoldedNetwork:
    """The configured network before its first step, as the random generator stands or as its weights say."""
    data, machine, network = configuration.data, configuration.machine, configuration.network
    if network.init is None:
        net = build(
            network.name, stages=network.stages, channels=network.channels, mean=data.mean, std=data.std
        )
    else:
        net = load_weights(network.init).train()
        net.mean, net.std = float(data.mean), float(data.std)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types
    net.checkpointing = machine.checkpointing
    if machine.compile:
        net.compile_stages()
    return net


def graphed(trainer: L.Trainer, precision: str) -> bool:
    """Whether whole steps are replayed as CUDA graphs: on GPUs, where no step asks the host for anything."""
    return trainer.strategy.root_device.type == "cuda" and precision in GRAPHED


def leave_gradients(strategy: Strategy) -> None:
    """Have a strategy of several processes leave gradients as they are: steps that are CUDA graphs average them.

    PyTorch's wrapper would keep the streams that a model was wrapped on, which no graph may wait for.
    """
    strategy.configure_ddp = lambda: None  # type: ignore[attr-defined]


def require_precision(precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"--machine.precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")


def require_counts(configuration: Configuration) -> None:
    recipe, machine = configuration.recipe, configuration.machine
    for name, count, least in (
        ("recipe.epochs", recipe.epochs, 1),
        ("recipe.validate_every", recipe.validate_every, 1),
        ("machine.checkpoint_every", machine.checkpoint_every, 1),
        ("recipe.look_every", recipe.look_every, 0),
        ("recipe.least_steps", recipe.least_steps, 0),
    ):
        if count < least:
            raise ValueError(f"--{name} must be at least {least}, got {count}")
    if str(machine.devices) == "0":
        raise ValueError("--machine.devices must be at least 1, or auto, got 0")


def require_several(configuration: Configuration, net: UnfoldedNetwork) -> None:
    """ValueError where a batch of one picture leaves a batch norm of the network one value a channel."""
    if configuration.data.batch_size < 2 and any(isinstance(part, ChannelGate) for part in net.modules()):
        raise ValueError(
            f"--data.batch_size must be at least 2 for {configuration.network.name}, which normalises each "
            f"channel over the batch; got {configuration.data.batch_size}"
        )


def trainer_of(
    configuration: Configuration,
    net: UnfoldedNetwork,
    data: SegmentationData,
    out: Path,
    selection: Selection,
    callbacks: Sequence[L.Callback] = (),
) -> L.Trainer:
    """Lightning's trainer with everything that a run keeps, logs and survives."""
    recipe, machine, stored = configuration.recipe, configuration.machine, asdict(configuration)
    last = last_checkpoint(out)
    weights = WeightsFiles(out, net, lambda net, path: save_weights(net, path, stored), MONITOR, "max")
    return L.Trainer(
        accelerator=machine.accelerator,
        **placement(machine.devices),
        precision=machine.precision,  # type: ignore[arg-type]
        max_epochs=recipe.epochs,
        check_val_every_n_epoch=recipe.validate_every,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        benchmark=True,
        log_every_n_steps=min(10, -(-len(data.train) // data.batch_size)),
        enable_model_summary=False,
        callbacks=[
            *callbacks,
            selection,
            *best_and_last(last.parent, MONITOR, "max", machine.checkpoint_every),
            weights,
            Progress(),
            Watch(stored),
            Provenance(stored),
            StopSignals(last),
            *([] if machine.compile else [Rehearsal(shapes_of(data), data.read)]),
        ],
        plugins=[Checkpoints()],
        logger=TensorBoardLogger(out, name="", version="tensorboard", default_hp_metric=False),
    )


def shapes_of(data: SegmentationData) -> list[tuple[int, ...]]:
    """Of the batches of an epoch and its validation, where the pictures are of one size."""
    size, whole = data.train.size, data.batch_size
    counts = {whole, len(data.train) % whole, len(data.validation) % whole} - {0, 1}
    return [] if size is None else [(count, 1, size, size) for count in sorted(counts, reverse=True)]


def open_data(options: Data, recipe: Recipe) -> SegmentationData:
    """The training and validation pictures of a settled run."""
    level = record_of(options.name).preparation.object_level

    def pictures(split: str, count: int, train: bool) -> Pictures:
        found = open_pictures(
            options.name,
            split,
            options.root,
            count=count,
            size=options.size or 128,
            seed=recipe.seed,
            skip_bad=options.skip_bad,
            keep_empty=options.keep_empty,
            grey=options.grey,
            levels=levels_of(options.levels),
            allow_suspect_masks=options.allow_suspect_masks or not train,
        )
        report_skipped(getattr(found, "skipped", ()))
        return found

    def samples(pictures: Pictures, train: bool) -> SegmentationDataset:
        crop = options.crop and train
        size = None if options.crop and not train else options.size or None
        return SegmentationDataset(
            pictures,
            size,
            options.mean,
            options.std,
            options.augment and train,
            recipe.seed,
            crop,
            soft=train,
            object_level=level,
        )

    training = pictures(options.train_split, options.train_count, train=True)
    if options.held_out:
        training, validation = divided(training, options.held_out, recipe.seed)
    else:
        validation = pictures(options.validation_split, options.validation_count, train=False)
    return SegmentationData(
        samples(training, train=True),
        samples(validation, train=False),
        options.batch_size,
        options.workers,
        recipe.seed,
        recipe.keep_last_batch,
    )


def divided(pictures: Pictures, share: float, seed: int) -> tuple[Pictures, Pictures]:
    """The pictures without a random share of them, and that share; ValueError where either has none."""
    count = round(share * len(pictures))
    if not 0 < count < len(pictures):
        raise ValueError(
            f"--data.held_out must leave pictures to train on and to validate on, of {len(pictures)}; got {share}"
        )
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed)).tolist()
    return Subset(pictures, order[count:]), Subset(pictures, order[:count])  # type: ignore[arg-type]


def report(selection: Selection, out: Path, stored: dict[str, Any], taken: dict[str, Any]) -> None:
    """Keep what the looks found in the weights files and, with the curve, in run.json, and say it."""
    looks = selection.looks
    record = {**stored, "looks": looks._asdict(), **taken}
    for name in ("best", "last"):
        path = out / f"{name}.safetensors"
        save_weights(load_weights(path), path, record)
    curve = [round(value, 4) for value in selection.values]
    write_whole(out / "run.json", json.dumps({**record, "curve": curve}) + "\n")
    print(
        f"IoU of the validation pictures in {looks.looks} looks: best {100 * looks.best:.2f}, last "
        f"{100 * looks.last:.2f}, mean of the last tenth {100 * looks.mean:.2f}"
    )


def device_name(device: torch.device) -> str:
    """What the device is called by its maker; "cpu" for a processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
