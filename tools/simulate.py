"""Monte-Carlo experiments of sparse channel estimation.

  python tools/simulate.py synthetic --estimators SVD,AM,KSBL,KOMP,OLS --trials 200 --out runs/synthetic
  python tools/simulate.py irs --estimators SVD,AM,PC0.8,PC0.5 --trials 50 --out runs/irs
  python tools/simulate.py irs --trials 5000 --device cuda --out runs/irs_5000

Writes into --out: results.csv and results.json (per point: means, standard errors, trials, seconds, settings,
seed), one PNG for each metric, and the same curves for TensorBoard. Finished shards are kept in --out/shards: the
same command continues an interrupted run, and a finished run can be given more trials, points or estimators.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

# Trials of a shard; shards (of one estimator, at several SNRs) solved in one batch; processes (None: one a core).
# Small kernels leave a GPU waiting for one process and for small batches.
SHARD_TRIALS = {"cpu": 200, "cuda": 5000}
SHARDS_TOGETHER = {"cpu": 1, "cuda": 5}
PROCESSES = {"cpu": None, "cuda": 4}


@dataclass(frozen=True)
class Shard:
    """Trials of one estimator at one point; `experiment` is a `SyntheticExperiment` or an `IRSExperiment`."""

    experiment: Any
    estimator: str
    point: dict[str, float]
    seed: int
    trials: range

    @property
    def name(self) -> str:
        at = "_".join(f"{key}={value:g}" for key, value in self.point.items())
        return f"{label(self.estimator)}_{at}_{self.trials.start}-{self.trials.stop}.json"


@lru_cache
def label(estimator: str) -> str:
    """The estimator in a file's name; weights from a file by their content, which may change."""
    kind, _, path = estimator.partition(":")
    return f"{kind}-{hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}" if path else kind


def synthetic(
    out: Path,
    estimators: str = "SVD,AM,KSBL,KOMP,OLS",
    trials: int = 200,
    snr: str = "5,10,15,20,25,30",
    seed: int = 0,
    rows: str = "8,12,15",
    columns: str = "15,15,15",
    sparsity: str = "3",
    first_rows: str | None = None,
    known_noise: bool = True,
    device: str = "cpu",
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Random Kronecker-sparse problems.

    Args:
        out: Folder for the results.
        estimators: Comma-separated, of SVD, AM, KSBL, PC0.8, PC0.5, classic, PCSBL, OMP, KOMP, OLS.
        trials: Random problems at each point.
        snr: Signal-to-noise ratios in dB, comma-separated.
        seed: Every trial is drawn from a generator seeded by this and its number.
        rows: Measurements M_i of each factor, comma-separated.
        columns: Unknowns N_i of each factor, comma-separated.
        sparsity: Nonzeros a factor, comma-separated for a sweep.
        first_rows: Values of M_1 for a sweep, comma-separated; it replaces the first of --rows.
        known_noise: Whether the estimators are told the noise variance.
        device: cpu, or cuda to solve up to 5000 trials of five points in one batch on a GPU.
        workers: Local processes; by default one a core, or four on a GPU. 1 stays in this process.
        scheduler: Address of a Dask scheduler to run on instead.
    """
    _prepare_processes(workers, scheduler)
    from unfoldkit.sbl.simulation.experiments import SYNTHETIC_ESTIMATORS, SyntheticExperiment

    _require_device(device, scheduler)
    sizes = numbers("rows", rows, int)
    sweeps = {
        "snr_db": numbers("snr", snr, float),
        "first_rows": numbers("first_rows", first_rows or str(sizes[0]), int),
        "sparsity": numbers("sparsity", sparsity, int),
    }
    names = _chosen(estimators, [*SYNTHETIC_ESTIMATORS, "OLS"])
    shards = []
    for snr_db, first, nonzeros in product(*sweeps.values()):
        experiment = SyntheticExperiment(
            (first, *sizes[1:]), tuple(numbers("columns", columns, int)), nonzeros, known_noise, device
        )
        point = {"snr_db": snr_db, "first_rows": first, "sparsity": nonzeros}
        shards += _shards(experiment, names, point, seed, trials)
    settings = {
        "experiment": "synthetic",
        "seed": seed,
        "rows": rows,
        "columns": columns,
        "known_noise": known_noise,
        "device": device,
    }
    _simulate(out, shards, settings, workers or PROCESSES[device], scheduler)


def irs(
    out: Path,
    estimators: str = "SVD,AM,PC0.8,PC0.5",
    trials: int = 50,
    snr: str = "4,8,12,16,20",
    seed: int = 0,
    fresh_training: bool = False,
    bs: str = "16",
    ms: str = "6",
    irs: str = "256",
    grid: int = 18,
    paths: int = 1,
    spread: int = 3,
    pilots: int = 3,
    patterns: int = 6,
    on_grid: bool = True,
    device: str = "cpu",
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Channel estimation in the uplink of a MIMO system aided by an intelligent reflecting surface.

    Args:
        out: Folder for the results.
        estimators: Comma-separated, of SVD, AM, KSBL, PC0.8, PC0.5, classic, PCSBL, OMP, KOMP, Decomposed, and
            Unfolded:FILE with weights of tools/train_estimator.py.
        trials: Random channels at each point.
        snr: Signal-to-noise ratios in dB, comma-separated.
        seed: Every trial is drawn from a generator seeded by this and its number.
        fresh_training: Draw pilots and patterns anew for each trial, not once for the run.
        bs: Antennas of the base station; 4x4 for a planar array.
        ms: Antennas of the mobile station; 2x3 for a planar array.
        irs: Elements of the surface; 16x16 for a planar array.
        grid: Points of the angular grid, in each dimension of an array.
        paths: Departure directions of each hop.
        spread: Neighbouring arrival angles of each path.
        pilots: Pilot symbols for each pattern.
        patterns: Patterns of the surface.
        on_grid: Whether directions lie on the grid.
        device: cpu, or cuda to solve up to 5000 trials of five points in one batch on a GPU.
        workers: Local processes; by default one a core, or four on a GPU. 1 stays in this process.
        scheduler: Address of a Dask scheduler to run on instead.
    """
    _prepare_processes(workers, scheduler)
    from unfoldkit.sbl.simulation.experiments import IRSExperiment, irs_estimator
    from unfoldkit.sbl.systems import IRSMIMO

    _require_device(device, scheduler)
    system = IRSMIMO(
        array("bs", bs), array("ms", ms), array("irs", irs), grid, paths, spread, pilots, patterns, on_grid
    )
    experiment = IRSExperiment(system, fresh_training, device)
    names = estimators.split(",")
    for name in names:
        irs_estimator(name)
    shards = []
    for snr_db in numbers("snr", snr, float):
        shards += _shards(experiment, names, {"snr_db": snr_db}, seed, trials)
    settings = {
        "experiment": "irs",
        "seed": seed,
        "fresh_training": fresh_training,
        "bs": bs,
        "ms": ms,
        "irs": irs,
    }
    settings |= {"grid": grid, "paths": paths, "spread": spread, "pilots": pilots, "patterns": patterns}
    settings |= {"on_grid": on_grid, "device": device}
    _simulate(out, shards, settings, workers or PROCESSES[device], scheduler)


def run_shards(shards: list[Shard]) -> list[dict[str, list[float]]]:
    """Scores of the trials of shards that differ in their SNR alone, on one core."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    snrs_db, one = [shard.point["snr_db"] for shard in shards], shards[0]
    scores: list[dict[str, list[float]]] = one.experiment.run(one.estimator, snrs_db, one.seed, one.trials)
    torch.set_num_threads(threads)
    return scores


def _simulate(
    out: Path, shards: list[Shard], settings: dict[str, Any], workers: int | None, scheduler: str | None
) -> None:
    from unfoldkit.sbl.simulation.results import write_curves, write_results

    folder = out / "shards"
    _claim(out, settings)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [shard for shard in shards if not (folder / shard.name).exists()]
    if missing:
        _run_all(missing, folder, workers, scheduler)
    scores = [(shard.estimator, shard.point, _stored(folder / shard.name)) for shard in shards]
    table = write_results(out, settings, scores)
    write_curves(out, table)


def _run_all(shards: list[Shard], folder: Path, workers: int | None, scheduler: str | None) -> None:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from unfoldkit.common.files import write_whole

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, _executor(workers, scheduler) as executor:
        task = progress.add_task("shards", total=len(shards))
        running = {executor.submit(run_shards, batch): batch for batch in _batches(shards)}
        try:
            for future in as_completed(running):
                for shard, scores in zip(running[future], future.result(), strict=True):
                    write_whole(folder / shard.name, json.dumps(scores))
                    progress.advance(task)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _batches(shards: list[Shard]) -> Iterator[list[Shard]]:
    """Shards that are solved together: as many as the device takes, of those that differ in their SNR alone."""
    alike: dict[Any, list[Shard]] = {}
    for shard in shards:
        alike.setdefault((shard.experiment, shard.estimator, shard.trials), []).append(shard)
    for group in alike.values():
        size = SHARDS_TOGETHER[group[0].experiment.device]
        yield from (group[start : start + size] for start in range(0, len(group), size))


@contextmanager
def _executor(workers: int | None, scheduler: str | None) -> Iterator[Executor]:
    if scheduler is None and workers == 1:
        with ThreadPoolExecutor(1) as executor:
            yield executor
        return
    if scheduler is None:
        import multiprocessing

        with ProcessPoolExecutor(workers, _process_context(), _end_with_parent) as executor:
            try:
                yield executor
            except BaseException:
                for process in multiprocessing.active_children():
                    process.terminate()
                raise
        return
    try:
        import cloudpickle
        from distributed import Client
    except ImportError:
        raise ValueError("--scheduler needs Dask: pip install 'unfoldkit[cluster]'") from None
    try:
        client = Client(scheduler, timeout=5)
    except OSError as error:
        raise ValueError(f"no Dask scheduler answers at {scheduler}: {error}") from None
    with client:
        cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers need not have this file
        yield client.get_executor()


def _process_context() -> Any:
    """Workers that are forked from a process with PyTorch in it, where the system can."""
    import multiprocessing

    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unfoldkit.sbl.simulation.experiments"])
    return context


def _prepare_processes(workers: int | None, scheduler: str | None) -> None:
    """Let the process that workers are forked from import PyTorch while this one does."""
    if workers == 1 or scheduler is not None or _process_context().get_start_method() != "forkserver":
        return
    from multiprocessing import forkserver

    forkserver.ensure_running()


def _end_with_parent() -> None:
    """A worker leaves Ctrl-C to its parent, and ends where that was killed."""
    import multiprocessing
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _shards(
    experiment: Any, names: list[str], point: dict[str, float], seed: int, trials: int
) -> list[Shard]:
    if trials < 1:
        raise ValueError(f"--trials must be at least 1, got {trials}")
    size = SHARD_TRIALS[experiment.device]
    blocks = [range(start, min(start + size, trials)) for start in range(0, trials, size)]
    return [Shard(experiment, name, point, seed, block) for name in names for block in blocks]


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Keep shards of different settings apart."""
    from unfoldkit.common.files import write_whole

    path = out / "settings.json"
    if path.exists() and _stored(path) != settings:
        raise ValueError(f"{out} holds a run with other settings ({path}); choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(settings, indent=2))


def _stored(path: Path) -> Any:
    """What a file of this run holds; raises ValueError where that is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not readable JSON ({error}); remove it and run again") from None


def _require_device(device: str, scheduler: str | None) -> None:
    import torch

    if device not in SHARD_TRIALS:
        raise ValueError(f"--device must be cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():  # asked without starting CUDA in this process
        raise ValueError("--device cuda: PyTorch finds no GPU here")
    if device == "cuda" and scheduler is not None:
        raise ValueError("--device cuda runs on this machine: leave --scheduler out")


def numbers(name: str, text: str, kind: type) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--{name} must be comma-separated numbers, got {text!r}") from None


def array(name: str, text: str) -> int | tuple[int, int]:
    try:
        sizes = [int(part) for part in text.split("x")]
    except ValueError:
        sizes = []
    if len(sizes) not in (1, 2) or min(sizes) < 1:
        raise ValueError(f"--{name} must be a number or a pair such as 4x4, got {text!r}")
    return sizes[0] if len(sizes) == 1 else (sizes[0], sizes[1])


def _chosen(text: str, known: list[str]) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no estimator {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def main(arguments: list[str] | None = None) -> None:
    from unfoldkit.common.console import run_command

    run_command("simulate.py", __doc__, {"synthetic": synthetic, "irs": irs}, arguments)


if __name__ == "__main__":
    main()
