"""Everything that decides a training run, as options of a file and of a command line."""

from dataclasses import dataclass

from ...datasets.names import DataSetName
from ..names import NetworkName, ProtocolName


@dataclass
class Network:
    """The network to train.

    Args:
        name: rpcanet, rpcanet++ or lowrank.
        stages: number of unfolded stages.
        channels: feature channels C of every module.
    """

    name: NetworkName = "rpcanet++"
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
