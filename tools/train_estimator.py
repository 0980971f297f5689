"""Train an unfolded KroSBL on simulated channels of the IRS-aided uplink.

    python tools/train_estimator.py --config tools/configs/unfolded_irs.yaml --out runs/unfolded
    python tools/train_estimator.py --config runs/unfolded/config.yaml --out runs/unfolded --resume
    python tools/simulate.py irs --estimators PC0.8,Unfolded:runs/unfolded/best.safetensors --fresh_training true

Every step draws fresh channels, pilots, patterns, noise and SNRs. In the folder --out the run leaves

    config.yaml                         the whole configuration
    best.safetensors, last.safetensors  weights for simulate.py, best by the NMSE of the validation channels
    checkpoints/best.ckpt, last.ckpt    all that --resume needs
    tensorboard/                        loss and NMSE at every validation SNR: tensorboard --logdir runs
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from unfoldkit.common.configuration import configured, prepare_folder, run_parser
from unfoldkit.common.console import one_line_errors


@dataclass
class EstimatorOptions:
    """The estimator to train.

    Args:
        iterations: unfolded iterations K.
        m_step: what the untrained estimator equals, SVD-KroSBL (svd) or AM-KroSBL (am).
        sweeps: sweeps of each of AM-KroSBL's M-steps.
        neighbours: entries on each side that a factor's entries may be coupled with; 0 learns no coupling.
    """

    iterations: int = 10
    m_step: Literal["svd", "am"] = "svd"
    sweeps: int = 3
    neighbours: int = 2


@dataclass
class SystemOptions:
    """The channels to train on; see sbl.systems.IRSMIMO.

    Args:
        bs: antennas of the base station.
        ms: antennas of the mobile station.
        irs: elements of the surface.
        grid: points of the angular grid.
        paths: departure directions of each hop.
        spread: neighbouring arrival angles of each path.
        pilots: pilot symbols for each pattern.
        patterns: patterns of the surface.
        on_grid: whether directions lie on the grid.
    """

    bs: int = 16
    ms: int = 6
    irs: int = 256
    grid: int = 18
    paths: int = 1
    spread: int = 3
    pilots: int = 3
    patterns: int = 6
    on_grid: bool = True


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
class Configuration:
    """Everything that decides a run."""

    estimator: EstimatorOptions
    system: SystemOptions
    recipe: Recipe
    machine: Machine


def parser() -> ArgumentParser:
    example = "tools/configs/unfolded_irs.yaml"
    return run_parser("train_estimator.py", __doc__, Configuration, example, "runs/unfolded")


def configuration_from(options: Namespace) -> Configuration:
    return configured(Configuration, options)


def train(configuration: Configuration, out: Path, resume: bool = False) -> None:
    """Train as configured; what is left in `out` is listed at the top of this file."""
    import lightning as L
    import torch
    from lightning.pytorch.loggers import TensorBoardLogger

    from unfoldkit.common.runs import (
        Checkpoints,
        Progress,
        Provenance,
        StopSignals,
        WeightsFiles,
        best_and_last,
    )
    from unfoldkit.sbl import UnfoldedKroSBL, save_estimator
    from unfoldkit.sbl.systems import IRSMIMO
    from unfoldkit.sbl.training.task import EstimationTask, SimulatedChannels

    recipe = configuration.recipe
    last = out / "checkpoints" / "last.ckpt"
    prepare_folder(configuration, out, last, resume)
    L.seed_everything(recipe.seed, workers=True, verbose=False)
    system = IRSMIMO(**asdict(configuration.system), dtype=torch.complex64)
    net = UnfoldedKroSBL(**asdict(configuration.estimator))
    fix(net, recipe.fixed)
    channels = SimulatedChannels(
        system,
        recipe.snr,
        recipe.batch_size,
        recipe.steps,
        recipe.validation_snr,
        recipe.validation_trials,
        configuration.machine.workers,
        recipe.seed,
    )
    stored = asdict(configuration)
    checkpoints = best_and_last(last.parent, "val/nmse_db", "min")
    weights = WeightsFiles(out, lambda path: save_estimator(net, path, stored), "val/nmse_db", "min")
    faults = [Provenance(stored), StopSignals(None)]  # an epoch is short: it begins anew
    trainer = L.Trainer(
        accelerator=configuration.machine.accelerator,
        devices=1,
        max_epochs=recipe.epochs,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        log_every_n_steps=min(10, recipe.steps),
        enable_model_summary=False,
        callbacks=[*checkpoints, weights, Progress(), *faults],
        plugins=[Checkpoints()],
        logger=TensorBoardLogger(out, name="", version="tensorboard", default_hp_metric=False),
    )
    print(
        f"Training {net.architecture['iterations']} iterations "
        f"({sum(parameter.numel() for parameter in net.parameters())} parameters), "
        f"{recipe.epochs * recipe.steps} steps of {recipe.batch_size} fresh channels"
    )
    task = EstimationTask(net, system, recipe.learning_rate, recipe.robustness)
    trainer.fit(task, channels, ckpt_path=last if last.is_file() else None, weights_only=True)


def fix(net: Any, names: list[str]) -> None:
    """Keep the parameters called `names` as they are."""
    known = dict(net.named_parameters())
    for name in names:
        if name not in known:
            raise ValueError(f"--recipe.fixed: no parameter {name}; there are {', '.join(known)}")
        known[name].requires_grad_(False)


def main() -> None:
    options = parser().parse_args()
    with one_line_errors("train_estimator.py"):
        train(configuration_from(options), Path(options.out), options.resume)


if __name__ == "__main__":
    main()
