"""Epochs as tools/train.py runs them, validation and checkpoints included, and how long the GPU idles in them."""

import json
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from unfoldkit.common.files import write_whole
from unfoldkit.kernels.native.compiler import cache_folder
from unfoldkit.rpcanet import train
from unfoldkit.rpcanet.training.configuration import Configuration, Data, Machine, Network, Recipe
from unfoldkit.tools.benchmarks.networks import NETWORKS
from unfoldkit.tools.benchmarks.timing import setting

PICTURES = (341, 86)  # generated ones: as many as SIRST has
WIDTH = 120  # columns that the table needs
PROFILED = 1  # the epoch whose kernels are added up


class Clock(L.Callback):
    """When it is made, when every epoch starts, and the seconds of the kernels of one of them."""

    def __init__(self) -> None:
        self.made = time.perf_counter()
        self.starts: list[float] = []
        self.busy = float("nan")
        self.profiling = ExitStack()

    def on_train_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        on_gpu = trainer.strategy.root_device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
        self.starts.append(time.perf_counter())
        if not on_gpu:
            return
        if trainer.current_epoch == PROFILED:
            self.profiler = self.profiling.enter_context(profile(activities=[ProfilerActivity.CUDA]))
        elif trainer.current_epoch == PROFILED + 1:
            self.profiling.close()
            self.busy = sum(event.self_device_time_total for event in self.profiler.key_averages()) / 1e6
            self.starts[-1] = time.perf_counter()


def run(
    device: str | None,
    networks: list[str],
    size: int,
    batch: int,
    data: str | None,
    precision: str,
    epochs: int,
    file: str | None,
) -> int:
    """Train each network for some epochs, print a table, and write JSON."""
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    rows = [measure(network, place, size, batch, data, precision, epochs) for network in networks]
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table(rows))
    if file:
        write_whole(file, json.dumps({"setting": setting(place), "rows": rows}, indent=2) + "\n")
    return 0


def measure(
    network: str, place: str, size: int, batch: int, data: str | None, precision: str, epochs: int
) -> dict[str, Any]:
    """Seconds before the first epoch, of it and of later ones (median), and the share of these without a kernel.

    caches: "warm" where every compiled kernel was there already, "cold" where the run had to compile some.
    """
    name, stages = NETWORKS[network]
    pictures = {"name": "sirst", "root": data} if data else {"name": "synthetic"}
    configuration = Configuration(
        Network(name, stages),  # type: ignore[arg-type]
        Data(**pictures, size=size, batch_size=batch, train_count=PICTURES[0], validation_count=PICTURES[1]),  # type: ignore[arg-type]
        Recipe(epochs=epochs),
        Machine({"cuda": "gpu"}.get(place, place), 1, precision),
    )
    before = _compiled()
    clock = Clock()
    with TemporaryDirectory() as folder:
        train(configuration, Path(folder) / "run", callbacks=[clock])
    seconds = [after - before for before, after in zip(clock.starts, clock.starts[1:], strict=False)]
    later = statistics.median(seconds[PROFILED + 1 :])
    return {
        "network": network,
        "size": size,
        "batch": batch,
        "what": "epoch",
        "data": pictures["name"],
        "precision": precision,
        "device": place,
        "caches": "warm" if _compiled() <= before else "cold",
        "preparation_seconds": clock.starts[0] - clock.made,
        "first_seconds": seconds[0],
        "seconds": later,
        "idle": None if place == "cpu" else 1 - clock.busy / later,
    }


def _compiled() -> set[str]:
    return {kernel.name for kernel in cache_folder().glob("*.cubin")}


def table(rows: list[dict[str, Any]]) -> Table:
    names = ("network", "size", "batch", "data", "precision", "caches")
    result = Table(*names, "before it, s", "first epoch, s", "epoch, s", "GPU idle")
    for row in rows:
        idle = "" if row["idle"] is None else f"{100 * row['idle']:.0f} %"
        times = [f"{row[key]:.2f}" for key in ("preparation_seconds", "first_seconds", "seconds")]
        result.add_row(*(str(row[name]) for name in names), *times, idle)
    return result
