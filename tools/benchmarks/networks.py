"""The networks, in inference and in training, against the same networks layer by layer."""

import ctypes
import gc
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unfoldkit import rpcanet
from unfoldkit.common.console import keep_memory
from unfoldkit.common.files import write_whole
from unfoldkit.rpcanet import Decomposition, decomposition_loss
from unfoldkit.rpcanet.inference.fast import feature_dtype
from unfoldkit.rpcanet.training.graphed import GraphedSteps
from unfoldkit.tools.benchmarks.plain.networks import plain
from unfoldkit.tools.benchmarks.timing import compare, resident, seconds_of, setting

NETWORKS = {
    "RPCANet": ("rpcanet", 6),
    "S3": ("rpcanet++", 3),
    "S6": ("rpcanet++", 6),
    "S9": ("rpcanet++", 9),
    "DRPCA-Net": ("drpca_net", 6),
    "L-RPCANet": ("l_rpcanet", 6),
}
WIDTH = 180  # columns that the table needs
LONG_PRODUCT = 0.02  # seconds of a matrix product that is timed well
INFERENCE = ("float32", "bfloat16", "float32-compiled", "bfloat16-compiled")
TRAINING = ("float32", "bfloat16", "float32-checkpointed", "float32-compiled", "bfloat16-compiled")


@dataclass(frozen=True)
class Case:
    """A network (a key of NETWORKS), the pictures it is given, and what it does with them."""

    network: str
    size: int
    batch: int
    what: str


class Batch(NamedTuple):
    image: Tensor
    mask: Tensor


def run(
    device: str | None,
    rounds: int,
    networks: list[str],
    sizes: list[int],
    batches: list[int],
    what: list[str],
    forms: list[str] | None,
    file: str | None,
) -> int:
    """Measure every case in every form, print a table, and write JSON after each; 1 where a form failed."""
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    keep_memory()  # as the tools that run networks
    asked = dict.fromkeys(form.split("-")[0] for form in forms or (*INFERENCE, *TRAINING))
    computed = {name: feature_dtype(getattr(torch, name), torch.device(place)) for name in asked}
    rates = {name: product_rate(place, dtype) for name, dtype in computed.items()}
    console, rows = Console(), []
    console.width = max(console.width, WIDTH)
    for values in itertools.product(networks, sizes, batches, what):
        case = Case(*values)
        known = INFERENCE if case.what == "inference" else TRAINING
        chosen = [form for form in known if not forms or form in forms]
        for row in measure(case, chosen, place, rounds, rates):
            console.print(in_one_line(row), highlight=False, soft_wrap=True)
            rows.append(row)
            if file:
                content = {"setting": setting(place) | {"product_flops_per_second": rates}, "rows": rows}
                write_whole(file, json.dumps(content, indent=2) + "\n")
    console.print(table(rows, rates))
    return int(any("failed" in row for row in rows))


def measure(
    case: Case, forms: list[str], place: str, rounds: int, rates: dict[str, float]
) -> Iterator[dict[str, Any]]:
    """One row a form: times, memory, rate and difference from the plain network; or why it failed."""
    name, stages = NETWORKS[case.network]
    if place == "cpu" and (need := memory_needed(case, stages)) > memory_free():
        yield {**asdict(case), "device": place, "failed": f"the plain network needs {need / 2**30:.0f} GiB"}
        return
    for form in forms:
        torch.manual_seed(0)
        torch.compiler.reset()
        found: dict[str, Any]
        try:
            found = measure_form(case, form, name, stages, place, rounds)
            dtype = form.split("-")[0]
            rate = found["flops"] / found["seconds"]
            found |= {"flops_per_second": rate, "of_matrix_product": rate / rates[dtype]}
        except (RuntimeError, NotImplementedError) as error:  # out of memory, no kernel, no compiler
            found = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        yield {**asdict(case), "form": form, "device": place, **found}
        gc.collect()
        if place == "cuda":
            torch.cuda.empty_cache()


def measure_form(case: Case, form: str, name: str, stages: int, place: str, rounds: int) -> dict[str, float]:
    batch = pictures(case, place)
    baseline = settled(plain(name, stages), place)
    state = {key: value.cpu() for key, value in baseline.state_dict().items()}
    net = rpcanet.from_published(state).to(place)
    ours: Callable[[], Any]
    obvious: Callable[[], Any]
    latency: dict[str, float] = {}
    once: Callable[[], Any] | None = None
    if case.what == "inference":
        fast = rpcanet.optimize(net, dtype_of(form), compile="compiled" in form)
        ours, obvious = partial(infer, fast, batch.image), partial(infer, baseline.eval(), batch.image)
        difference = largest_difference(ours()[:3], obvious())
        once = partial(
            infer, partial(rpcanet.Unfolding.forward, fast), batch.image
        )  # a graph keeps its memory
        latency["latency_seconds"] = seconds_from_host_to_host(fast, batch.image)
    else:
        ours, obvious = training_step(prepared(net, form), form, batch), plain_step(baseline, batch)
        difference = gradient_difference(net, ours, baseline, obvious)
    memory = [peak_memory(way, place) for way in (once or ours, obvious)]
    timing = compare(ours, obvious, place, rounds)
    return {
        "seconds": timing.seconds,
        "plain_seconds": timing.obvious_seconds,
        "ratio": timing.ratio,
        "bytes": memory[0],
        "plain_bytes": memory[1],
        "flops": count_flops(plain(name, stages), case),
        "difference": difference,
        **latency,
    }


def seconds_from_host_to_host(net: nn.Module, image: Tensor) -> float:
    """From pictures in the host's memory to the probabilities there; median of 15 after 3 to warm up."""
    host, seconds = image.cpu(), []
    repeats = 15 if image.is_cuda else 1
    for _ in range(repeats + 3 * image.is_cuda):
        start = time.perf_counter()
        infer(net, host.to(image.device)).object.sigmoid().cpu()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[-repeats:])


def dtype_of(form: str) -> torch.dtype:
    return torch.bfloat16 if form.startswith("bfloat16") else torch.float32


def pictures(case: Case, place: str) -> Batch:
    shape = (case.batch, 1, case.size, case.size)
    image = torch.rand(shape, device=place)
    return Batch(image, (image > 0.97).float())


@torch.no_grad()
def settled(net: nn.Module, place: str) -> nn.Module:
    """With running statistics that fit its input, so that no activation dies or explodes."""
    net.to(place).train()
    for _ in range(3):
        net(torch.rand(2, 1, 64, 64, device=place))
    return net


@torch.inference_mode()
def infer(net: Callable[[Tensor], Any], image: Tensor) -> Any:
    return net(image)


def prepared(net: rpcanet.Unfolding, form: str) -> rpcanet.Unfolding:
    """As tools/train.py prepares a network."""
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's types
    net.checkpointing = "checkpointed" in form
    if "compiled" in form:
        net.compile_stages()
    return net.train()


def training_step(net: rpcanet.Unfolding, form: str, batch: Batch) -> Callable[[], Tensor]:
    """A step as tools/train.py takes it: on a GPU replayed as a CUDA graph."""
    device = batch.image.device.type
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-6, fused=True, capturable=device == "cuda")
    mixed = dtype_of(form) == torch.bfloat16

    def step(image: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=mixed):
            loss = decomposition_loss(net(image), image, mask).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return partial(GraphedSteps(step, optimizer) if device == "cuda" else step, *batch)


def plain_step(net: nn.Module, batch: Batch) -> Callable[[], None]:
    optimizer = torch.optim.Adam(net.train().parameters(), lr=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        decomposition = Decomposition(*net(batch.image))
        decomposition_loss(decomposition, batch.image, batch.mask).total.backward()
        optimizer.step()

    return step


def largest_difference(ours: tuple[Tensor, ...], plain_parts: tuple[Tensor, ...]) -> float:
    """Over B, O and D, of the norm of the difference over the norm."""
    return max(
        float((a.double() - b.double()).norm() / b.double().norm())
        for a, b in zip(ours, plain_parts, strict=True)
    )


def gradient_difference(
    net: nn.Module, ours: Callable[[], Any], baseline: nn.Module, obvious: Callable[[], None]
) -> float:
    """The norm of the difference of all gradients over their norm, both ways taking the same step."""
    state = baseline.state_dict()
    obvious()
    gradients = {name: p.grad for name, p in baseline.named_parameters()}
    expected = rpcanet.from_published({key: gradients.get(key, state[key]).cpu() for key in state})
    ours()
    pairs = [
        (a.grad.cpu().double(), b.detach().double())
        for a, b in zip(net.parameters(), expected.parameters(), strict=True)
        if a.grad is not None
    ]
    squares = [((a - b).square().sum(), b.square().sum()) for a, b in pairs]
    error, norm = (sum(column) for column in zip(*squares, strict=True))
    return float(error / norm) ** 0.5


def count_flops(net: nn.Module, case: Case) -> int:
    """Floating-point operations of the plain network's convolutions and products."""
    net.to("meta").train(case.what == "training")
    image = torch.empty(case.batch, 1, case.size, case.size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(case.what == "training"):
        parts = net(image)
        if case.what == "training":
            torch.cat(parts).sum().backward()
    return counter.get_total_flops()


def product_rate(place: str, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a large square matrix product, the best of 5.

    It is smaller where it takes long: without units for it, bfloat16 is emulated at a hundredth of the speed.
    """
    n, largest = 256, 8192 if place == "cuda" else 2048
    while True:
        matrix = torch.randn(n, n, device=place, dtype=dtype)
        product = partial(torch.mm, matrix, matrix)
        product()
        seconds = min(seconds_of(product, place, 1) for _ in range(5))
        if n == largest or seconds > LONG_PRODUCT:
            return 2 * n**3 / seconds
        n *= 2


def peak_memory(function: Callable[[], object], place: str) -> float:
    """Bytes that a call takes beyond what is held before it; NaN where the system does not say."""
    function()
    gc.collect()
    if place == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before: float = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return float(torch.cuda.max_memory_allocated() - before)
    if platform.system() != "Linux":
        return float("nan")
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    function()
    return resident("VmHWM") - before


def memory_needed(case: Case, stages: int) -> float:
    """About what the plain network takes: 12 planes of 32 channels in inference, 55 a stage in training."""
    planes = 12 if case.what == "inference" else 55 * stages
    return planes * 32 * 4.0 * case.batch * case.size**2


def memory_free() -> float:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except FileNotFoundError:
        return float("inf")
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024.0


def in_one_line(row: dict[str, Any]) -> str:
    name = "{network} {size}x{size} batch {batch} {what}".format_map(row) + " " + row.get("form", "")
    if "failed" in row:
        return f"{name}: {row['failed']}"
    return f"{name}: {row['ratio']:.2f} times faster, {1000 * row['seconds']:.2f} ms"


def table(rows: list[dict[str, Any]], rates: dict[str, float]) -> Table:
    products = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in rates.items())
    result = Table(
        *(
            "network",
            "size",
            "batch",
            "what",
            "form",
            "times faster",
            "ms",
            "host to host",
            "plain ms",
            "us a pixel and stage",
        ),
        *("MiB", "plain MiB", "TFLOP/s", "of product", "difference"),
        title=f"Matrix product: {products}",
    )
    for row in rows:
        names = [str(row.get(key, "")) for key in ("network", "size", "batch", "what", "form")]
        result.add_row(*names, *([row["failed"]] if "failed" in row else figures(row)))
    return result


def figures(row: dict[str, Any]) -> list[str]:
    stages, pixels = NETWORKS[row["network"]][1], row["batch"] * row["size"] ** 2
    return [
        f"{row['ratio']:.2f}",
        f"{1000 * row['seconds']:.2f}",
        f"{1000 * row['latency_seconds']:.2f}" if "latency_seconds" in row else "",
        f"{1000 * row['plain_seconds']:.1f}",
        f"{1e6 * row['seconds'] / pixels / stages:.3f}",
        f"{row['bytes'] / 2**20:.0f}",
        f"{row['plain_bytes'] / 2**20:.0f}",
        f"{row['flops_per_second'] / 1e12:.2f}",
        f"{100 * row['of_matrix_product']:.0f}%",
        f"{row['difference']:.1e}",
    ]
