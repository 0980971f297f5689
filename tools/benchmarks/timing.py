"""How every benchmark times: two ways alternate, and only ratios within a round count."""

import platform
import statistics
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch


def setting(device: str) -> dict[str, Any]:
    """What a result depends on: device, versions, date."""
    import triton

    found: dict[str, Any] = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "processor": _processor(),
        "device": device,
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    """The processor's name, where the system tells it."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def resident(field: str) -> float:
    """Bytes of memory of this process, VmRSS now or VmHWM at most; NaN where the system does not say.

    The peak of `resource` begins with that of the process that started this one.
    """
    if platform.system() != "Linux":
        return float("nan")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024.0


def copy_bandwidth(device: str) -> float:
    """Bytes read and written a second by a copy far larger than the caches."""
    source = torch.randn(2**28 if device == "cuda" else 2**25, device=device)
    target = torch.empty_like(source)
    seconds = [seconds_of(partial(target.copy_, source), device, 5) for _ in range(5)]
    return 2 * source.numel() * source.element_size() / statistics.median(seconds)


class Comparison(NamedTuple):
    """Median seconds of two ways, and the median of their ratio (obvious / ours) over rounds."""

    seconds: float
    obvious_seconds: float
    ratio: float


def seconds_of(function: Callable[[], object], device: str, repeats: int) -> float:
    """Seconds a call: a wall clock on a CPU, CUDA events on a GPU."""
    if device == "cuda":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(repeats):
            function()
        stop.record()
        torch.cuda.synchronize()
        return start.elapsed_time(stop) / 1000 / repeats
    begin = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - begin) / repeats


def compare(
    ours: Callable[[], object], obvious: Callable[[], object], device: str, rounds: int
) -> Comparison:
    """Alternate two ways for some rounds, each long enough to be timed, after one call to warm up each."""
    repeats = []
    for function in (ours, obvious):
        function()
        repeats.append(max(1, min(50, round(0.02 / max(seconds_of(function, device, 1), 1e-6)))))
    pairs = [
        (seconds_of(ours, device, repeats[0]), seconds_of(obvious, device, repeats[1])) for _ in range(rounds)
    ]
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    return Comparison(first, second, statistics.median(b / a for a, b in pairs))
