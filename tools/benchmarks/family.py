"""Every network in one table: size, operations, time a picture, and the IoU that its paper states."""

import json
import statistics
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from unfoldkit import rpcanet
from unfoldkit.common.console import keep_memory
from unfoldkit.common.files import write_whole
from unfoldkit.tools.benchmarks.networks import Case, count_flops, infer
from unfoldkit.tools.benchmarks.plain.networks import plain
from unfoldkit.tools.benchmarks.timing import seconds_of, setting

RESULTS = Path(__file__).resolve().parents[1] / "results"
SETS = {"nudt_sirst": "NUDT-SIRST", "irstd_1k": "IRSTD-1k", "sirst": "SIRST", "sirst_aug": "SIRST-Aug"}
SIZE = 256
Row = dict[str, Any]


class Member(NamedTuple):
    """A network as `rpcanet.build` calls it, its sizes where they are not the defaults, where it is published."""

    name: str
    stages: int = 6
    sizes: dict[str, int] = {}  # noqa: RUF012 - read alone
    sets: tuple[str, ...] = tuple(SETS)


MEMBERS = {
    "RPCANet": Member("rpcanet"),
    "RPCANet++ S3": Member("rpcanet++", 3),
    "RPCANet++ S6": Member("rpcanet++", 6),
    "RPCANet++ S9": Member("rpcanet++", 9),
    "DRPCA-Net": Member("drpca_net"),
    "L-RPCANet, c = 16, n = 6": Member("l_rpcanet", sets=("nudt_sirst",)),
    "L-RPCANet, c = 16, n = 3": Member("l_rpcanet", sizes={"noise_layers": 3}, sets=("irstd_1k",)),
    "L-RPCANet, c = 4, n = 6": Member("l_rpcanet", sizes={"narrow": 4}, sets=("sirst_aug",)),
    "LowRankRPCANet": Member("lowrank"),
}


def run(rounds: int, file: str | None) -> int:
    """Measure every network on the CPU and, where there is one, on a GPU; print the table, and write JSON."""
    keep_memory()  # as the tools that run networks
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    gpu = torch.cuda.is_available()
    nets = {title: built(member) for title, member in MEMBERS.items()}
    seconds = times(nets, "cpu", rounds)
    gpu_seconds = times(nets, "cuda", rounds) if gpu else dict.fromkeys(nets)
    stated = published()
    rows = [
        {
            "network": title,
            "parameters": sum(p.numel() for p in net.parameters()),
            "flops": operations(MEMBERS[title]),
            "seconds": seconds[title],
            "gpu_seconds": gpu_seconds[title],
            "published_iou": {data: stated[data].get(title) for data in SETS},
        }
        for title, net in nets.items()
    ]
    if file:
        content = {"setting": setting("cuda" if gpu else "cpu"), "rows": rows}
        write_whole(file, json.dumps(content, indent=2) + "\n")
    console = Console()
    console.width = max(console.width, 150)
    console.print(table(rows))
    return 0


def built(member: Member) -> rpcanet.Unfolding:
    return rpcanet.build(member.name, stages=member.stages, **member.sizes).eval()


def times(nets: dict[str, rpcanet.Unfolding], place: str, rounds: int) -> dict[str, float]:
    """Median seconds of each inference form for a picture, float32; the networks take turns."""
    image = torch.rand(1, 1, SIZE, SIZE, device=place)
    calls = {title: partial(infer, optimized(net, place), image) for title, net in nets.items()}
    for call in calls.values():
        call()
    measured = [{title: seconds_of(call, place, 1) for title, call in calls.items()} for _ in range(rounds)]
    return {title: statistics.median(turn[title] for turn in measured) for title in nets}


def optimized(net: rpcanet.Unfolding, place: str) -> nn.Module:
    fast = rpcanet.optimize(net.to(place))
    net.cpu()
    return fast


def operations(member: Member) -> int | None:
    """Floating-point operations of the convolutions and products, layer by layer; None where they are not all."""
    if member.name == "lowrank":
        return None
    net = plain(member.name, member.stages, **member.sizes)
    return count_flops(net, Case(member.name, SIZE, 1, "inference"))


def published() -> dict[str, dict[str, float]]:
    """IoU in percent by data set and network, as the papers state it."""
    content = json.loads((RESULTS / "published.json").read_text(encoding="utf-8"))
    return {
        data: {
            title: row["iou"]
            for title, member in MEMBERS.items()
            if data in member.sets and (row := content[data].get(title.partition(",")[0]))
        }
        for data in SETS
    }


def table(rows: list[Row]) -> Table:
    result = Table(
        *("network", "parameters", f"GFLOP, {SIZE}x{SIZE}", "CPU, ms", "GPU, ms"),
        *(f"IoU, {title}" for title in SETS.values()),
        title="One picture in the inference form, float32; IoU in percent, as published",
    )
    for row in rows:
        times = (None if row[key] is None else 1000 * row[key] for key in ("seconds", "gpu_seconds"))
        giga = None if row["flops"] is None else row["flops"] / 1e9
        result.add_row(
            row["network"],
            f"{row['parameters']:,}",
            *("" if value is None else f"{value:.4g}" for value in (giga, *times)),
            *("" if value is None else f"{value:.2f}" for value in row["published_iou"].values()),
        )
    return result
