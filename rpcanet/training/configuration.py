"""Everything that decides a training run, as options of a file and of a command line."""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ...datasets.names import DataSetName, Grey
from ..names import LossName, NetworkName, ProtocolName

OPEN: Any = None  # for the data set's record to fill in
Options = TypeVar("Options", "Data", "Recipe")


@dataclass
class Network:
    """The network to train.

    Args:
        name: what `rpcanet.build` calls it.
        stages: number of unfolded stages.
        channels: feature channels C of every module.
        init: weights to start from, a file or zoo:NAME; name, stages, channels and form are then theirs.
    """

    name: NetworkName = "rpcanet++"
    stages: int = 6
    channels: int = 32
    init: str | None = None


@dataclass
class Data:
    """The pictures and how they reach the network; what is not given is as the data set's authors have it.

    Args:
        name: a published data set, folder (its layout is recognised) or synthetic (generated, needs no root).
        root: the data set's folder; tools/prepare_data.py says what it should hold.
        train_split: split to train on; by default all pictures that are not for testing.
        validation_split: split to choose the best weights with; by default test where the data set is a published
            one, as the papers do, else val.
        size: pictures are resized to this height and width, in pixels.
        crop: cut random windows of that size instead, half of them holding an object; validation is then on
            whole pictures.
        held_out: share of the training pictures, drawn by the seed, to validate on instead of validation_split;
            they are not trained on.
        augment: turn and mirror the training pictures at random.
        mean: grey level, 0 to 255, that is subtracted.
        std: grey level that is divided by.
        grey: how colour becomes grey, by opencv or pillow.
        levels: what becomes of pictures that are not 8 bits: full, percentile or LOW,HIGH; by default each
            picture's percentiles where it does not use its range.
        batch_size: pictures a step, at least 2; over several devices, of each.
        workers: processes that load pictures, of each device.
        train_count: number of generated training scenes (synthetic only).
        validation_count: number of generated validation scenes (synthetic only).
        skip_bad: leave out pictures that cannot be used, and list them; without it the first ends the run.
        keep_empty: train on pictures whose mask holds no object, too.
        allow_suspect_masks: train on masks that are transparent, full, of classes or inverted, as they are.
    """

    name: DataSetName = "synthetic"
    root: str | None = None
    train_split: str = OPEN
    validation_split: str = OPEN
    size: int = OPEN
    crop: bool = OPEN
    held_out: float = 0.0
    augment: bool = OPEN
    mean: float = OPEN
    std: float = OPEN
    grey: Grey = OPEN
    levels: str | None = None
    batch_size: int = OPEN
    workers: int = 2
    train_count: int = 400
    validation_count: int = 40
    skip_bad: bool = False
    keep_empty: bool = OPEN
    allow_suspect_masks: bool = False


@dataclass
class Recipe:
    """How long and how fast to learn; what is not given is as the data set's authors have it.

    Args:
        epochs: passes over the training pictures.
        least_steps: epochs are added until full batches alone, on one device, make so many steps.
        learning_rate: Adam's rate at the first step; it decays as (1 - step/total)^0.9.
        loss: soft_iou, of each picture as published, or batch_iou, over the batch with cross-entropy: it learns
            where most pictures hold no object, too.
        fidelity_weight: weight of the restoration error in the loss.
        protocol: evaluation protocol for validation: overlap, centroid, vessel or defect.
        validate_every: epochs between validations; the last epoch is followed by one in any case.
        look_every: steps between further validations; 0 for none.
        keep_last_batch: train on the last, incomplete batch of an epoch.
        seed: of weights, order and augmentation.
    """

    epochs: int = OPEN
    least_steps: int = 0
    learning_rate: float = OPEN
    loss: LossName = "soft_iou"
    fidelity_weight: float = 0.01
    protocol: ProtocolName = OPEN
    validate_every: int = 1
    look_every: int = OPEN
    keep_last_batch: bool = OPEN
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
        checkpoint_every: epochs between checkpoints to go on from.
    """

    accelerator: str = "auto"
    devices: int | str = "auto"
    precision: str = "32-true"
    compile: bool = False
    checkpointing: bool = False
    checkpoint_every: int = 1


@dataclass
class Configuration:
    """Everything that decides a run."""

    network: Network
    data: Data
    recipe: Recipe
    machine: Machine


def settled(configuration: Configuration) -> Configuration:
    """The configuration with everything that it leaves open as the data set's record has it.

    >>> network, machine = Network(), Machine()
    >>> nudt = settled(Configuration(network, Data("nudt_sirst"), Recipe(), machine))
    >>> nudt.data.augment, nudt.data.size, nudt.data.train_split, nudt.recipe.epochs, nudt.recipe.look_every
    (False, 256, 'trainval', 800, 100)
    """
    from ...datasets.records import record_of

    data, recipe = configuration.data, configuration.recipe
    record = record_of(data.name)
    training, testing = [*record.counts, "train"][0], "test" if record.counts else "val"
    preparation, published = record.preparation, record.recipe
    known_data = {
        "train_split": training,
        "validation_split": testing,
        "size": published.crop or preparation.size,
        "crop": bool(published.crop),
        "augment": published.augment,
        "mean": preparation.mean,
        "std": preparation.std,
        "grey": preparation.grey,
        "batch_size": published.batch_size,
        "keep_empty": preparation.keep_empty,
    }
    known_recipe = {
        "epochs": published.epochs,
        "learning_rate": published.learning_rate,
        "protocol": record.protocol,
        "look_every": published.look_every,
        "keep_last_batch": published.keep_last_batch,
    }
    return replace(configuration, data=_filled(data, known_data), recipe=_filled(recipe, known_recipe))


def _filled(options: Options, known: dict[str, Any]) -> Options:
    """The options with those that are None as known."""
    return replace(
        options, **{name: value for name, value in known.items() if getattr(options, name) is None}
    )
