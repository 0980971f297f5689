"""The estimators at the sizes of the paper's experiments, and beyond."""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.table import Table

from unfoldkit.tools.benchmarks.timing import resident, setting

if TYPE_CHECKING:
    from torch import Tensor

REFERENCE = Path(__file__).resolve().parents[3] / "shared/reference/krosbl_real_case.mat"


class Measurement(NamedTuple):
    """What was timed, its figure, the unit, and the figure's bound (None where there is none)."""

    name: str
    value: float
    unit: str
    bound: float | None


def run(only: list[str] | None, rounds: int, json_path: str | None, device: str = "cpu") -> int:
    """Measure the cases whose name holds one of the words `only`, print a table, and write `json_path`."""
    cases: dict[str, Callable[[int], Iterator[Measurement]]] = {
        "irs": _irs,
        "synthetic": _synthetic,
        "single": _single,
        "batch": _batch,
        "large": _large,
        "huge": _huge,
    }
    if device == "cuda":
        cases = {"irs": _irs_on_gpu, "batch": _batch_on_gpu}
    chosen = [case for name, case in cases.items() if not only or any(word in name for word in only)]
    if not chosen:
        raise ValueError(f"--only: no such case; there are {', '.join(cases)}")
    measured = [measurement for case in chosen for measurement in case(rounds)]
    table = Table("case", "measured", "at most")
    for name, value, unit, bound in measured:
        table.add_row(name, f"{value:.3g} {unit}", "" if bound is None else f"{bound:g} {unit}")
    Console().print(table)
    if json_path:
        rows = [m._asdict() for m in measured]
        text = json.dumps({"setting": setting(device), "rows": rows}, indent=2)
        from unfoldkit.common.files import write_whole

        write_whole(json_path, text + "\n")
    return 0


def _irs(rounds: int) -> Iterator[Measurement]:
    from unfoldkit.sbl import IRSOptions, simulate

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        simulate(IRSOptions(), folder, **IRSOptions.simulated)
        seconds = time.perf_counter() - start
    yield Measurement(
        "irs: 50 trials x 5 SNRs x (SVD, AM, PC0.8, PC0.5), with start-up and figures", seconds, "s", 20
    )


def _irs_on_gpu(rounds: int) -> Iterator[Measurement]:
    """As a command from the start of Python to the figures, on a new machine and again; and called by a script."""
    from unfoldkit.sbl import IRSOptions, simulate

    what = "irs: 5000 trials x 5 SNRs x (SVD, AM, PC0.8, PC0.5), in all"
    arguments = ("irs", "--device", "cuda", "--trials", "5000")
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"UNFOLDKIT_CACHE": folder, "TRITON_CACHE_DIR": folder}
        for run in ("first run, which compiles the kernels", "later run"):
            out = Path(folder, run.split()[0])
            command = [sys.executable, "-m", "unfoldkit", "simulate", *arguments, "--out", str(out)]
            seconds = _seconds(partial(subprocess.run, command, env=environment, check=True))
            yield Measurement(f"{what}, {run}", seconds, "s", 8)
        points = json.loads((out / "results.json").read_text())["points"]
        options = IRSOptions.simulated | {"trials": 5000, "device": "cuda"}
        seconds = _seconds(partial(simulate, IRSOptions(), Path(folder, "called"), **options))
        yield Measurement(f"{what}, in a process that has imported PyTorch", seconds, "s", 8)
    seconds_of: dict[str, float] = {}
    for point in points:
        seconds_of[point["estimator"]] = seconds_of.get(point["estimator"], 0) + 5000 * point["seconds"]
    for estimator, each in seconds_of.items():
        yield Measurement(f"irs: {estimator}, 5000 trials x 5 SNRs, of the later run", each, "s", None)


def _synthetic(rounds: int) -> Iterator[Measurement]:
    from unfoldkit.sbl import SyntheticOptions, simulate

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        simulate(SyntheticOptions(), folder, **SyntheticOptions.simulated)
        seconds = time.perf_counter() - start
    yield Measurement(
        "synthetic: 200 trials x 6 SNRs x (SVD, AM, KSBL, KOMP, OLS), with start-up and figures",
        seconds,
        "s",
        30,
    )


def _single(rounds: int) -> Iterator[Measurement]:
    """One solve at a time of the reference case, or of a drawn problem of its sizes where that file is missing."""
    import torch

    from unfoldkit.sbl import SVDKroSBL
    from unfoldkit.sbl.simulation.experiments import trial_generator
    from unfoldkit.sbl.systems import draw_synthetic, observe

    torch.set_num_threads(1)
    if REFERENCE.is_file():
        what, (factors, clean, noise) = "the reference case", _reference_case()
    else:
        what, problem = "a drawn problem", draw_synthetic(trial_generator(0, 0))
        factors, clean, noise = problem.factors, problem.clean, problem.noise
    method = SVDKroSBL()
    for snr_db in (5.0, 15.0, 25.0):
        y, s2 = observe(clean, noise, snr_db)
        iterations = int(method(factors, y, s2).iterations)
        times = [_seconds(partial(method, factors, y, s2)) for _ in range(10 * rounds)]
        name = f"single: one SVD-KroSBL solve of {what} at {snr_db:g} dB, {iterations} iterations, median"
        yield Measurement(name, 1e3 * statistics.median(times), "ms", 10)


def _reference_case() -> "tuple[tuple[Tensor, ...], Tensor, Tensor]":
    """Factors, clean measurements and noise that the authors' code computed with."""
    import scipy.io
    import torch

    case = scipy.io.loadmat(REFERENCE)
    factors = tuple(torch.from_numpy(case[name]) for name in ("A1", "A2", "A3"))
    clean, noise = (torch.from_numpy(case[name][:, 0]) for name in ("yo", "noise"))
    return factors, clean, noise


def _batch(rounds: int) -> Iterator[Measurement]:
    """A batch holds copies of one problem, so that every member does the same work."""
    import torch

    from unfoldkit.sbl import SVDKroSBL
    from unfoldkit.sbl.simulation.experiments import trial_generator
    from unfoldkit.sbl.systems import draw_synthetic, observe

    torch.set_num_threads(1)
    problem, method = draw_synthetic(trial_generator(0, 0)), SVDKroSBL()
    y, s2 = observe(problem.clean, problem.noise, 15.0)
    per_trial = {}
    for size in (1, 100, 1000):
        batch = y.expand(size, -1)
        times = [_seconds(partial(method, problem.factors, batch, s2)) for _ in range(max(1, rounds // 2))]
        per_trial[size] = min(times) / size
        yield Measurement(f"batch: SVD-KroSBL, {size} trials, one of them", 1e3 * per_trial[size], "ms", None)
    ratio = per_trial[1000] / per_trial[100]
    yield Measurement("batch: cost per trial, 1000 against 100", ratio, "x", 1.2)


def _batch_on_gpu(rounds: int) -> Iterator[Measurement]:
    from unfoldkit.sbl.simulation.experiments import IRSExperiment

    experiment = IRSExperiment(device="cuda")
    for name, most in (("SVD", 0.3), ("PC0.8", 0.8)):
        per_trial = {}
        for size in (1, 10_000):
            runs = [experiment.run(name, [12.0], 0, range(size))[0]["seconds"][0] for _ in range(rounds)]
            per_trial[size] = statistics.median(runs)
            yield Measurement(f"batch: {name}, {size} trials, one of them", 1e3 * per_trial[size], "ms", None)
        yield Measurement(f"batch: {name}, 10000 trials in one call", 10_000 * per_trial[10_000], "s", most)
        ratio = per_trial[10_000] / per_trial[1]
        yield Measurement(f"batch: {name}, cost per trial, 10000 against 1", ratio, "x", 1 / 50)


def _large(rounds: int) -> Iterator[Measurement]:
    yield from four_factors("large", 32, 64, 30, 2)


def _huge(rounds: int) -> Iterator[Measurement]:
    yield from four_factors("huge", 64, 128, None, 10)


def four_factors(
    name: str, rows: int, columns: int, seconds_bound: float | None, memory_bound: float
) -> Iterator[Measurement]:
    """In a process of its own, whose peak memory then is the solve's (the import of PyTorch included)."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        seconds, memory, found = pool.apply(solve_four_factors, (rows, columns))
    if not found:
        raise RuntimeError(f"the support of the {rows} x {columns} problem was not recovered")
    what = f"{name}: 4 factors of {rows} x {columns}, float32, support 3 a factor, 20 dB"
    yield Measurement(f"{what}, time", seconds, "s", seconds_bound)
    yield Measurement(f"{what}, peak memory", memory, "GiB", memory_bound)


def solve_four_factors(rows: int, columns: int) -> tuple[float, float, bool]:
    """Seconds, peak memory in GiB, and whether the support was recovered."""
    import torch

    from unfoldkit.kernels import kron_matvec
    from unfoldkit.sbl import SVDKroSBL
    from unfoldkit.sbl.systems import observe

    random = torch.Generator().manual_seed(0)
    factors = [torch.randn(rows, columns, generator=random) for _ in range(4)]
    support = [torch.randperm(columns, generator=random)[:3].sort().values for _ in range(4)]
    parts = [A[:, kept] for A, kept in zip(factors, support, strict=True)]
    clean = kron_matvec(parts, torch.randn(81, generator=random))
    y, s2 = observe(clean, torch.randn(clean.shape, generator=random), 20.0)
    start = time.perf_counter()
    estimate = SVDKroSBL(scaled_start=True)(factors, y, s2, compact=True)
    seconds = time.perf_counter() - start
    memory = resident("VmHWM") / 2**30
    assert estimate.support is not None
    found = all(torch.equal(i.sort().values, s) for i, s in zip(estimate.support, support, strict=True))
    return seconds, memory, found


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
