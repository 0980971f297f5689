"""What decides the training of an unfolded estimator, for command lines, files and notebooks."""

from dataclasses import dataclass, field
from typing import Literal

from ..simulation.options import SystemOptions


@dataclass
class EstimatorOptions:
    """The estimator to train.

    Args:
        iterations: unfolded iterations K.
        m_step: what the untrained estimator equals, SVD-KroSBL (svd) or AM-KroSBL (am).
        sweeps: sweeps of each of AM-KroSBL's M-steps.
        neighbours: entries on each side that a factor's entries may be coupled with; 0 learns no coupling.
        as_published: whether it works on columns as they are, with the M-step of the paper.
    """

    iterations: int = 10
    m_step: Literal["svd", "am"] = "svd"
    sweeps: int = 3
    neighbours: int = 2
    as_published: bool = False


@dataclass
class Recipe:
    """How long and how fast to learn.

    Args:
        epochs: validations; each follows `steps` steps.
        steps: steps an epoch.
        batch_size: channels a step.
        learning_rate: Adam's rate at the first step; it decays as (1 - step/total)^0.9.
        robustness: the loss is the mean of log(NMSE + robustness); the larger, the more failed trials weigh.
        snr: lowest and highest SNR of a training channel in dB.
        validation_snr: SNRs in dB of the validation channels.
        validation_trials: validation channels at each.
        fixed: parameters of UnfoldedKroSBL that keep their first value, such as fixed_point or exponent.
        seed: of everything drawn.
    """

    epochs: int = 40
    steps: int = 50
    batch_size: int = 256
    learning_rate: float = 0.02
    robustness: float = 0.03
    snr: tuple[float, float] = (4.0, 20.0)
    validation_snr: list[float] = field(default_factory=lambda: [4.0, 8.0, 12.0, 16.0, 20.0])
    validation_trials: int = 500
    fixed: list[str] = field(default_factory=list)
    seed: int = 42


@dataclass
class Machine:
    """What to compute on; see the options of lightning.Trainer.

    Args:
        accelerator: auto, cpu, gpu, ...
        workers: processes that draw channels.
    """

    accelerator: str = "auto"
    workers: int = 0


@dataclass
class EstimatorConfiguration:
    """Everything that decides a run of `train_estimator`.

    >>> EstimatorConfiguration(recipe=Recipe(epochs=8)).system.grid
    18
    """

    estimator: EstimatorOptions = field(default_factory=EstimatorOptions)
    system: SystemOptions = field(default_factory=SystemOptions)
    recipe: Recipe = field(default_factory=Recipe)
    machine: Machine = field(default_factory=Machine)
