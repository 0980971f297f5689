"""How every benchmark times: two ways alternate, and only ratios within a round count."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch


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
