"""The kernels for features: compiled for every architecture, and run on a CPU against the layers one by one."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import ctypes
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unfoldkit.common import nvrtc as compiler
from unfoldkit.kernels import ContrastWindow, ConvChain, LSTMStep, features
from unfoldkit.kernels.features import DTYPE, SCALE, total
from unfoldkit.kernels.gpu.features import launches
from unfoldkit.kernels.gpu.features.packing import CHANNELS, TRAINED, at_once

HERE = Path(__file__).parent
H100 = (232448, 233472, 132)
CACHED = (launches._chain_kernel, launches._chain_rows, launches._window_rows, launches._backward_rows)
RUNS = {  # layers C -> C, from a plane, to a plane, residual
    "embedding": (0, True, False, False),
    "layer": (1, False, False, False),
    "two": (2, False, False, False),
    "residual": (2, False, False, True),
    "from a plane": (2, True, False, True),
    "projection": (0, False, True, False),
    "to a plane": (1, False, True, False),
    "residual to a plane": (2, False, True, True),
    "plane to plane": (1, True, True, False),
}


class OnHost:
    """A kernel compiled as C++, a fiber for each thread."""

    def __init__(self, library):
        self.run = library.run

    def __call__(self, grid, block, shared, *arguments):
        assert shared <= H100[0]
        sizes = [grid] if isinstance(grid, int) else [*grid]
        self.run(*sizes, *[1] * (3 - len(sizes)), block, *map(self.passed, arguments))

    @staticmethod
    def passed(argument):
        if isinstance(argument, torch.Tensor):
            return ctypes.c_void_p(argument.data_ptr())
        return ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else argument


@pytest.fixture
def on_host(monkeypatch, tmp_path_factory):
    """Every kernel runs on this CPU."""
    if shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")

    @lru_cache(None)
    def kernel(source, name, device, **definitions):
        target = tmp_path_factory.mktemp("host") / f"{source.stem}.so"
        macros = [f"-D{key}={value}" for key, value in definitions.items()]
        macros += [f'-DSOURCE="{source}"', f"-DKERNEL_{name}"]
        flags = ["-std=c++17", "-O1", "-w", "-shared", "-fPIC", *macros]
        subprocess.run(["g++", *flags, "-o", target, HERE / "features_on_host.cpp"], check=True)
        return OnHost(ctypes.CDLL(str(target)))

    monkeypatch.setattr(launches, "kernel", kernel)
    monkeypatch.setattr(launches, "_limits", lambda device: H100)
    monkeypatch.setattr(features, "_on_chip", lambda *what: True)
    for cached in CACHED:
        cached.cache_clear()
    yield
    for cached in CACHED:
        cached.cache_clear()


def conv(inputs, outputs):
    result = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.normal_(result.weight, std=(2 / (9 * inputs)) ** 0.5)
    return result


def chain_of(channels, layers, from_plane, to_plane, residual):
    first = [conv(1, channels)] if from_plane else []
    last = [conv(channels, 1)] if to_plane else []
    return ConvChain([*first, *(conv(channels, channels) for _ in range(layers)), *last], residual=residual)


def pictures(channels, shape):
    return torch.randn(shape[0], channels, *shape[1:])


def as_features(x, dtype=DTYPE):
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def in_double(chain, source):
    """The chain of its own rounded weights and input, without another rounding; nothing is added to its plane."""
    count = chain.from_plane + chain.layers + chain.to_plane
    weights = [getattr(chain, f"weight{i}").double() for i in range(count)]
    biases = chain.biases.double().split([len(weight) for weight in weights])
    x = (source if isinstance(source, torch.Tensor) else (SCALE * total(source)).to(DTYPE)).double()
    if chain.from_plane:
        x = F.conv2d(x, weights.pop(0), biases[0], padding=1).relu()
    start, biases = x, biases[chain.from_plane :]
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x, last = F.conv2d(x, weight, bias, padding=1), i == chain.layers - 1
        x = x + start if last and chain.residual else x if i == chain.layers else x.relu()
    return x


def error_of(found, chain, source, added):
    """Over the norms of what the result is the sum of, which may cancel."""
    exact, plane = in_double(chain, source), total(added).double() if added else torch.zeros(1)
    return float((found.double() - exact - plane.to(exact)).norm() / (exact.norm() + plane.norm()))


def difference(ours, theirs):
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


CASES = [
    (name, channels, shape)
    for name in RUNS
    for channels, shape in ((32, (1, 9, 35)), (16, (2, 17, 5)), (8, (2, 17, 5)), (64, (1, 5, 35)))
]
CASES += [(name, channels, (1, 1, 1)) for name in RUNS for channels in CHANNELS]
QUICK = [case for case in CASES if case[0] in ("embedding", "layer", "residual to a plane")]
QUICK = [case for case in QUICK if case[2] != (1, 1, 1) and case[1] in (16, 32)]
QUICK += [("residual to a plane", 8, (2, 17, 5))]


@pytest.mark.parametrize(
    ("name", "channels", "shape"),
    [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow) for case in CASES],
)
def test_a_chain_equals_its_layers(name, channels, shape, on_host):
    torch.manual_seed(0)
    chain = chain_of(channels, *RUNS[name])
    planes = ((1.0, pictures(1, shape)), (-0.5, pictures(1, shape)))
    source = planes if chain.from_plane else as_features(SCALE * pictures(channels, shape))
    added = planes if chain.to_plane else ()
    found = chain(source, added)
    assert error_of(found, chain, source, added) < 8e-4
    assert found.dtype == (torch.float32 if chain.to_plane else torch.float16)


def assert_range(device):
    """Features beyond the largest float16 are computed, those beyond two million end as no number."""
    torch.manual_seed(0)
    chain, plane = chain_of(16, *RUNS["plane to plane"]).to(device), pictures(1, (1, 9, 5)).to(device)
    large, too_large = ((2e5, plane),), ((1e8, plane),)
    assert total(large).abs().max() > 2 * torch.finfo(DTYPE).max
    assert error_of(chain(large), chain, large, ()) < 8e-4
    assert not chain(too_large).isfinite().any()


def test_features_may_reach_two_million(on_host):
    assert_range("cpu")


def two_layers(channels, shape, device):
    """Features through two layers with rectifiers, and after the first of them, as training has them."""
    torch.manual_seed(0)
    x = as_features(pictures(channels, shape), torch.bfloat16).to(device)
    weights = [conv(channels, channels).weight.detach().bfloat16().float().to(device) for _ in range(2)]
    biases = torch.randn(2, channels, device=device)
    middle, found = launches.run_layers(x, weights, biases.flatten(), 3, residual=False)
    first = F.conv2d(x.double(), weights[0].double(), biases[0].double(), padding=1).relu()
    second = F.conv2d(first, weights[1].double(), biases[1].double(), padding=1).relu()
    return (found, second), (middle, first)


def test_two_layers_leave_what_their_gradients_need(on_host):
    for ours, exact in two_layers(16, (1, 9, 5), "cpu"):
        assert difference(ours.double(), exact) < 6e-3


def prior_of(channels):
    torch.manual_seed(0)
    few = channels // 4
    squeeze = torch.randn(few, channels), torch.randn(few), torch.randn(channels, few), torch.randn(channels)
    window, centre = 0.02 * torch.randn(channels, channels, 17, 17), 0.1 * torch.randn(channels, channels)
    return ContrastWindow(conv(1, channels), window, centre, torch.randn(channels), squeeze, 0.1)


def step_of(channels, first):
    torch.manual_seed(0)
    gates, sources = (3, 1) if first else (4, 2)
    weight = torch.randn(channels * gates, channels * sources, 3, 3)
    return LSTMStep(weight / (9 * channels) ** 0.5, torch.randn(channels * gates))


def state(channels, shape, first):
    z, hidden, cell = (as_features(SCALE * pictures(channels, shape)) for _ in range(3))
    return z, None if first else (hidden, cell)


@pytest.mark.slow
@pytest.mark.parametrize("channels", CHANNELS)
def test_a_window_equals_its_layers(channels, on_host):
    prior = prior_of(channels)
    planes = ((1.0, pictures(1, (2, 5, 33))),)
    assert difference(prior(planes), prior._layer_by_layer(planes)) < 1e-3


@pytest.mark.parametrize("channels", [8, pytest.param(16, marks=pytest.mark.slow), 32])
@pytest.mark.parametrize("first", [True, False])
def test_an_lstm_step_equals_its_layers(first, channels, on_host):
    step, given = step_of(channels, first), state(channels, (1, 5, 33), first)
    pairs = zip(step(*given), step._layer_by_layer(*given), strict=True)
    assert all(difference(ours, theirs) < 2e-3 for ours, theirs in pairs)


def test_other_channels_go_layer_by_layer():
    """Also where there is a GPU."""
    for channels in (4, 24):
        chain, x = chain_of(channels, *RUNS["two"]), as_features(SCALE * pictures(channels, (1, 5, 7)))
        assert not chain.packed.numel()
        assert not launches.serves(torch.device("cuda"), channels)
        assert error_of(chain(x, ()), chain, x, ()) < 8e-4


@pytest.mark.parametrize("channels", [16, pytest.param(32, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rectified", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_gradients_of_a_layer(channels, rectified, on_host, monkeypatch):
    """With another gradient added or not; a block has two tiles."""
    monkeypatch.setattr(launches, "_limits", lambda device: (101376, 102400, 1))
    torch.manual_seed(0)
    grad, x, plus = (as_features(pictures(channels, (1, 5, 33)), torch.bfloat16) for _ in range(3))
    weight = torch.randn(channels, channels, 3, 3)
    found = launches.run_conv_backward(grad, x, weight, rectified, None if rectified else plus)
    assert_gradients(found, grad, x, weight, rectified, None if rectified else plus)


def assert_gradients(found, grad, x, weight, rectified, plus):
    wide = [y.double().requires_grad_() for y in (x, weight.bfloat16())]
    result = F.conv2d(*wide, padding=1)
    of_x, of_weight = torch.autograd.grad(result, wide, grad.double())
    of_x = of_x * (x > 0) if rectified else of_x
    of_x = of_x if plus is None else of_x + plus
    assert float((found[0] - of_x).norm() / of_x.norm()) < 3e-3  # bfloat16's own
    assert float((found[1] - of_weight).norm() / of_weight.norm()) < 2e-6
    of_bias = grad.double().sum((0, 2, 3))
    assert float((found[2] - of_bias).norm() / of_bias.norm()) < 2e-6


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["some", "every"])
def test_kernels_compile_for_every_architecture(architecture, every):
    cases = [("chain.cu", launches.chain_definitions(spec, 8)) for spec in specifications()]
    for channels in CHANNELS:
        heights = (8, 16, 32) if channels < 64 else (8, 16)
        cases += [("window.cu", launches.window_definitions(channels, rows)) for rows in heights]
    for channels in (8, *TRAINED):
        cases += [("gates.cu", launches.gates_definitions(channels, first)) for first in (True, False)]
    for channels in TRAINED:
        cases += [("conv_backward.cu", launches.backward_definitions(channels, rows)) for rows in (8, 16)]
        cases += [("pack.cu", {"CHANNELS": channels})]
    some = dict(reversed(cases)).items()  # the first of each source, and two more chains
    cases = cases if every else [*some, cases[2 * len(RUNS) + 7], cases[3 * len(RUNS)]]
    try:
        compiler.nvrtc()
    except OSError:
        pytest.skip("needs NVRTC")
    for source, definitions in cases:
        assert compiler.cubin(launches.FOLDER / source, architecture, **definitions)[:4] == b"\x7fELF"


def specifications():
    return [
        launches.Chain(channels, layers, from_plane, to_plane, (1 << layers) - 1, residual)
        for channels in CHANNELS
        for layers, from_plane, to_plane, residual in RUNS.values()
        if layers <= at_once(channels)
    ]


@pytest.mark.parametrize("limits", [H100, (166912, 167936, 108), (101376, 102400, 84)])
def test_tiles_fit_on_the_chip(limits, monkeypatch):
    """Of an H100, an A100 and a card whose multiprocessors have 100 KiB."""
    monkeypatch.setattr(launches, "_limits", lambda device: limits)
    for spec in specifications():
        for columns, height in ((1, 5), (8, 256), (64, 256), (1000, 1024)):
            rows = launches._chain_rows.__wrapped__(spec, columns, height, torch.device("cpu"))
            assert launches.Chain.shared(spec, rows) <= limits[0]
            if spec.channels in TRAINED:
                assert launches._backward_rows.__wrapped__(spec.channels, torch.device("cpu")) > 0
            if limits[0] > 150_000:
                rows = launches._window_rows.__wrapped__(spec.channels, columns, height, torch.device("cpu"))
                assert launches._window_shared(spec.channels, rows) <= limits[0]


def test_what_makes_no_run_is_refused():
    for convs in ([conv(16, 16)] * 3, [conv(16, 8)], [nn.Conv2d(16, 16, 5)]):
        with pytest.raises(ValueError, match="convs must lead"):
            ConvChain(convs)
    with pytest.raises(ValueError, match="memory"):
        LSTMStep(torch.randn(12, 4, 3, 3), torch.zeros(12))(
            torch.rand(1, 4, 5, 5), (torch.rand(1), torch.rand(1))
        )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 40, 50), (3, 256, 256)])
class TestOnTheGPU:
    @pytest.mark.parametrize("name", RUNS)
    @pytest.mark.parametrize("channels", CHANNELS)
    def test_chain(self, name, channels, shape):
        torch.manual_seed(0)
        chain = chain_of(channels, *RUNS[name]).cuda()
        planes = ((1.0, pictures(1, shape).cuda()), (-0.5, pictures(1, shape).cuda()))
        source = planes if chain.from_plane else as_features(SCALE * pictures(channels, shape)).cuda()
        added = planes if chain.to_plane else ()
        assert features._on_chip([planes[0][1]], channels)
        assert error_of(chain(source, added), chain, source, added) < 8e-4

    def test_features_may_reach_two_million(self, shape):
        assert_range("cuda")

    @pytest.mark.parametrize("channels", [16, 32])
    def test_two_layers(self, channels, shape):
        for ours, exact in two_layers(channels, shape, "cuda"):
            assert difference(ours.double(), exact) < 6e-3

    @pytest.mark.parametrize("channels", CHANNELS)
    def test_window(self, channels, shape):
        prior, planes = prior_of(channels).cuda(), ((1.0, pictures(1, shape).cuda()),)
        assert features._on_chip([planes[0][1]], channels, "window")
        assert difference(prior(planes), prior._layer_by_layer(planes)) < 1e-3

    @pytest.mark.parametrize("channels", CHANNELS)
    @pytest.mark.parametrize("first", [True, False])
    def test_lstm_step(self, first, channels, shape):
        step = step_of(channels, first).cuda()
        z, memory = state(channels, shape, first)
        given = z.cuda(), memory and tuple(x.cuda() for x in memory)
        assert features._on_chip([given[0]], channels, "gates") == (channels < 64)
        pairs = zip(step(*given), step._layer_by_layer(*given), strict=True)
        assert all(difference(ours, theirs) < 2e-3 for ours, theirs in pairs)

    @pytest.mark.parametrize("rectified", [True, False])
    @pytest.mark.parametrize("channels", [16, 32])
    def test_gradients_of_a_layer(self, channels, rectified, shape):
        torch.manual_seed(0)
        grad, x, plus = (as_features(pictures(channels, shape), torch.bfloat16).cuda() for _ in range(3))
        weight = torch.randn(channels, channels, 3, 3).cuda()
        given = (grad, x, weight, rectified, None if rectified else plus)
        assert_gradients(launches.run_conv_backward(*given), *given)
