"""Monte-Carlo experiments over many trials: shared out among processes, kept as they come, and summed up."""

import gc
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed, wait
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from unfoldkit.common.files import write_whole

from .gpus import compile_ahead, watched
from .ofdm_options import OFDMOptions
from .options import IRSOptions, Point, SyntheticOptions, decibels, different, varying
from .processes import PAINTER, WORKER, executor, painters, prepare
from .shards import (
    NUMBERS_VERSION,
    OFDM_TRIALS,
    SHARD_TRIALS,
    Scores,
    Shard,
    batches,
    blocks,
    kept_scores,
    label,
    read_json,
    run_shards,
    warm_up,
    write_shard,
)

Options = SyntheticOptions | IRSOptions | OFDMOptions
SWEPT = ("first_rows", "sparsity")  # options that are part of the points, which a run can be given more of


def simulate(
    options: Options,
    out: str | Path,
    estimators: str,
    trials: int,
    snr: str,
    seed: int = 0,
    device: str = "cpu",
    workers: int | None = None,
    scheduler: str | None = None,
) -> list[dict[str, Any]]:
    """Run estimators on random problems and sum up their scores.

    Finished shards are kept in out/shards: the same call continues an interrupted run, and a finished run can be
    given more trials, points or estimators. A script calls it under `if __name__ == "__main__":` unless workers is
    1, since the processes import it.

    Args:
        options: The experiment; options.simulated holds the paper's estimators, trials and snr for it.
        out: Folder for the results.
        estimators: Comma-separated, of SVD, AM, KSBL, PC0.8, PC0.5, classic, PCSBL, OMP, KOMP; LS (least squares
            of the least norm), LMMSE (with the true covariance of x), sLMMSE (with that of 600 draws), VAMP
            (with a Bernoulli-Gaussian prior learned by EM), LASSO (extra unfoldkit[baselines]), genie (told the
            support and the variances) and bound (Bayesian Cramer-Rao, of the pooled NMSE; drawn dashed); OLS too
            in the synthetic experiment; Decomposed and Unfolded:FILE, with weights of tools/train_estimator.py,
            in the other.
            The OFDM experiment has LS, LMMSE (Sionna's, over subcarriers, symbols and antennas; LMMSE-ORDER for
            another order such as t-f), AM, OffGrid, Unfolded:FILE, Oracle (told every path's directions and delay)
            and known (the channel itself).
        trials: Random problems at each point.
        snr: Signal-to-noise ratios in dB, comma-separated.
        seed: Every trial is drawn from a generator seeded by this and its number.
        device: cpu, or cuda to solve up to 5000 trials of five points in one batch on a GPU.
        workers: Local processes, by default one a core; 1 stays in this process. On GPUs threads, by default one
            for each, beside processes that write and draw the results.
        scheduler: Address of a Dask scheduler to run on instead.

    Returns:
        A row for each estimator and point, as in results.json: means of every metric, pooled and median NMSE and
        outages, see `statistics.summary`, each with its standard error.

    Raises:
        ValueError: an option is at fault, which leaves `out` as it was; `out` holds a run with other settings; or
            an estimator refuses the problems.
        OSError: `out` cannot be written; ConnectionError: the scheduler was lost.
        RuntimeError: a process ended before its time, or could not start.

    >>> import contextlib, io, tempfile
    >>> options = SyntheticOptions(rows="4,5", columns="6,6", sparsity="2")
    >>> with contextlib.redirect_stdout(io.StringIO()):  # the progress bar
    ...     [row] = simulate(options, tempfile.mkdtemp(), "OLS", trials=3, snr="20", workers=1)
    >>> row["estimator"], row["snr_db"], row["trials"], row["srr"]
    ('OLS', 20.0, 3, 1.0)
    """
    out, folder = Path(out), Path(out) / "shards"
    if device == "cuda" and not isinstance(options, OFDMOptions):
        compile_ahead(estimators.split(","), *options.shape())
    if workers != 1 and scheduler is None:
        prepare(PAINTER if device == "cuda" else WORKER)
    _import_torch()
    _require_machine(device, workers, scheduler)
    names, snrs_db = different("estimators", estimators.split(",")), decibels(snr)
    _require_estimators(options, names)
    if trials < 1:
        raise ValueError(f"--trials must be at least 1, got {trials}")
    shards = list(_shards(options, names, trials, snrs_db, seed, device))
    settings = options.settings() | {"seed": seed, "device": device, "numbers_version": NUMBERS_VERSION}
    settings = {name: value for name, value in settings.items() if name not in SWEPT}
    varying([shard.point for shard in shards])
    _require_same_run(out, settings)
    found = kept_scores(folder, shards, settings)
    missing = [shard for shard in shards if shard.name not in found]
    with painters(beside=device == "cuda" and workers != 1) as painting:
        if missing:
            with watched() if device == "cuda" else nullcontext() as waiting:
                found |= _compute(missing, out, settings, workers, scheduler, device, painting)
            if waiting is not None:
                print(waiting)
        _claim(out, settings)
        from .results import write_curves, write_results

        kept = [(shard.estimator, shard.point, found[shard.name]) for shard in shards]
        table = write_results(out, settings, kept, painting)
        write_curves(out, table, kept, painting)
    return table


def _require_estimators(options: Options, names: Sequence[str]) -> None:
    """ValueError unless the experiment has an estimator of each name."""
    from ..baselines.lasso import require_celer
    from .experiments import SYNTHETIC_ESTIMATORS, irs_estimator
    from .references import IRS_REFERENCES, SYNTHETIC_REFERENCES, require_reference

    if isinstance(options, OFDMOptions):
        _require_ofdm(options, names)
        return
    if "LASSO" in names:
        require_celer()
    if isinstance(options, IRSOptions):
        system = options.system()
        for name in names:
            if name in IRS_REFERENCES:
                require_reference(name, system)
            else:
                irs_estimator(name)
        return
    known = [*SYNTHETIC_ESTIMATORS, *SYNTHETIC_REFERENCES]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no estimator {', '.join(unknown)}; there are {', '.join(known)}")


def _require_ofdm(options: OFDMOptions, names: Sequence[str]) -> None:
    [(_, experiment)] = options.experiments()
    from ..ofdm.experiment import require_name

    experiment.uplink()
    for name in names:
        require_name(name)
        label(name)  # reads a file of weights


def _import_torch() -> None:
    """Import what everything stands on, which is never garbage.

    To look for garbage among it takes an eighth of PyTorch's import, and most of this process's end.
    """
    if "torch" in sys.modules or not gc.isenabled():
        return
    gc.disable()
    try:
        from . import experiments  # noqa: F401
    finally:
        gc.enable()
        gc.freeze()


def _require_machine(device: str, workers: int | None, scheduler: str | None) -> None:
    import torch

    if device not in SHARD_TRIALS:
        raise ValueError(f"--device must be cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():  # asked without starting CUDA in this process
        raise ValueError("--device cuda: PyTorch finds no GPU here")
    if device == "cuda" and scheduler is not None:
        raise ValueError("--device cuda runs on this machine: leave --scheduler out")
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be at least 1, got {workers}")


def _shards(
    options: Options, names: list[str], trials: int, snrs_db: list[float], seed: int, device: str
) -> Iterator[Shard]:
    experiments = options.experiments(device)
    size = OFDM_TRIALS if isinstance(options, OFDMOptions) else SHARD_TRIALS[device]
    for snr_db in snrs_db:
        for point, experiment in experiments:
            at: Point = {"snr_db": snr_db, **point}
            for name in names:
                for block in blocks(trials, size):
                    yield Shard(experiment, name, at, seed, block)


def _require_same_run(out: Path, settings: dict[str, Any]) -> None:
    """Keep runs of different settings apart; one of another version of the numbers is continued in this one."""
    path = out / "settings.json"
    if not path.exists():
        return
    try:
        stored = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; remove it and run again") from None
    if not isinstance(stored, dict):
        raise ValueError(f"{path}: holds no settings; remove it and run again")
    same_version = stored.get("numbers_version") == NUMBERS_VERSION
    compared = settings.keys() | stored.keys() if same_version else settings.keys() & stored.keys()
    other = sorted(name for name in compared - {"numbers_version"} if stored.get(name) != settings.get(name))
    if other:
        raise ValueError(
            f"{out} holds a run with other settings ({path}: {', '.join(other)}); choose another --out"
        )


def _compute(
    shards: list[Shard],
    out: Path,
    settings: dict[str, Any],
    workers: int | None,
    scheduler: str | None,
    device: str,
    painting: Executor,
) -> dict[str, Scores]:
    """Compute shards, keep each, and return their scores by name; `painting` writes them meanwhile.

    `out` is claimed with the first: what is refused before leaves nothing.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    folder = out / "shards"
    computed: dict[str, Scores] = {}
    writes: list[Future[None]] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, executor(workers, scheduler, device) as processes:
        task = progress.add_task("shards", total=len(shards))
        first: list[Future[None]] = []
        if device == "cuda" and settings["experiment"] != OFDMOptions.name:
            first = [processes.submit(warm_up, shards)]
        running = {processes.submit(run_shards, batch, NUMBERS_VERSION): batch for batch in batches(shards)}
        try:
            wait(first)  # which Python would slow
            import torch.utils.tensorboard  # noqa: F401  # for the results, while others compute

            for future in as_completed(running):
                found: list[Scores] = future.result()
                _claim(out, settings)
                folder.mkdir(exist_ok=True)
                _settle(writes)
                for shard, scores in zip(running[future], found, strict=True):
                    writes.append(painting.submit(write_shard, folder / shard.name, settings, scores))
                    computed[shard.name] = scores
                    progress.advance(task)
            _settle(writes)
        except BaseException:
            if scheduler is None:  # a cluster drops what a client that closes has asked of it
                processes.shutdown(wait=False, cancel_futures=True)
            wait(writes)
            raise
    return computed


def _settle(writes: list[Future[None]]) -> None:
    """Wait for what is being written, and raise what that raised."""
    while writes:
        writes.pop(0).result()


def _claim(out: Path, settings: dict[str, Any]) -> None:
    path = out / "settings.json"
    if path.exists() and read_json(path) == settings:
        return
    _require_same_run(out, settings)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(settings, indent=2))
