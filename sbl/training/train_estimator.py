"""Training of an unfolded estimator on simulated channels, from a configuration to weights in a folder."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from unfoldkit.common.configuration import keep_configuration, require_folder

from .configuration import EstimatorConfiguration, Recipe

if TYPE_CHECKING:
    from ..estimators.unfolded import UnfoldedKroSBL


def train_estimator(
    configuration: EstimatorConfiguration, out: str | Path, resume: bool = False
) -> "UnfoldedKroSBL":
    """Train an unfolded KroSBL on channels of the IRS-aided uplink, fresh ones in every step.

    Leaves in `out` config.yaml (the configuration), best.safetensors and last.safetensors (weights, best by the
    NMSE of the validation channels), checkpoints/best.ckpt and last.ckpt (all that `resume` needs), and
    tensorboard/ (loss, and NMSE at every validation SNR).

    resume: continue the run in `out` from its last checkpoint; the numbers are those of an uninterrupted run.
    Returns the estimator of best.safetensors.

    Raises:
        ValueError: the configuration is at fault, `out` holds a run already, or one of another configuration.
        FileNotFoundError: there is no run to resume.
        OSError: `out` cannot be written.

    >>> import contextlib, io, tempfile
    >>> from unfoldkit.sbl.simulation.options import SystemOptions
    >>> from unfoldkit.sbl.training.configuration import EstimatorOptions, Machine, Recipe
    >>> small = EstimatorConfiguration(
    ...     EstimatorOptions(iterations=1),
    ...     SystemOptions(bs=4, ms=3, irs=8, grid=6, pilots=2, patterns=3),
    ...     Recipe(epochs=1, steps=1, batch_size=4, validation_snr=[10.0], validation_trials=2),
    ...     Machine("cpu"),
    ... )
    >>> with contextlib.redirect_stdout(io.StringIO()):
    ...     estimator = train_estimator(small, tempfile.mkdtemp())
    >>> estimator.architecture["iterations"]
    1
    """
    import lightning as L
    import torch
    from lightning.pytorch.loggers import TensorBoardLogger

    from unfoldkit.common.checkpoints import Checkpoints, Provenance, WeightsFiles, best_and_last
    from unfoldkit.common.runs import Progress, StopSignals, naming_accelerator, seed_everything

    from ..estimators.unfolded import UnfoldedKroSBL
    from .task import EstimationTask, SimulatedChannels
    from .weights import load_estimator, save_estimator

    out, recipe = Path(out), configuration.recipe
    _require_counts(recipe)
    last = out / "checkpoints" / "last.ckpt"
    system = configuration.system.system(torch.complex64)
    net = UnfoldedKroSBL(**asdict(configuration.estimator))
    _fix(net, recipe.fixed)
    require_folder(configuration, out, last, resume)
    seed_everything(recipe.seed)
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
    weights = WeightsFiles(
        out, net, lambda net, path: save_estimator(net, path, stored), "val/nmse_db", "min"
    )
    faults = [Provenance(stored), StopSignals(None)]  # an epoch is short: it begins anew
    with naming_accelerator(configuration.machine.accelerator):
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
    keep_configuration(configuration, out)
    print(
        f"Training {net.architecture['iterations']} iterations "
        f"({sum(parameter.numel() for parameter in net.parameters())} parameters), "
        f"{recipe.epochs * recipe.steps} steps of {recipe.batch_size} fresh channels"
    )
    task = EstimationTask(net, system, recipe.learning_rate, recipe.robustness)
    trainer.fit(task, channels, ckpt_path=last if last.is_file() else None, weights_only=True)
    return load_estimator(out / "best.safetensors")


def _require_counts(recipe: Recipe) -> None:
    for name in ("epochs", "steps", "batch_size", "validation_trials"):
        if getattr(recipe, name) < 1:
            raise ValueError(f"--recipe.{name} must be at least 1, got {getattr(recipe, name)}")
    if not recipe.validation_snr:
        raise ValueError("--recipe.validation_snr names no SNR")


def _fix(net: "UnfoldedKroSBL", names: list[str]) -> None:
    """Keep the parameters called `names` as they are."""
    known = dict(net.named_parameters())
    for name in names:
        if name not in known:
            raise ValueError(f"--recipe.fixed: no parameter {name}; there are {', '.join(known)}")
        known[name].requires_grad_(False)
