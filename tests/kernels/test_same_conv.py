"""The small convolution: its C sources, where they are taken, against `F.conv2d` in double precision."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from functools import partial
from threading import Thread

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

from unfoldkit import kernels
from unfoldkit.kernels.native import compiler
from unfoldkit.kernels.native import conv as conv_in_c

EXAMPLES = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
LAYOUTS = {"channels-last": torch.channels_last, "planes": torch.contiguous_format}
compiled = pytest.mark.skipif(compiler._compiler() is None, reason="needs a C compiler")


def draw(seed, *shape, dtype=torch.float32, last=True):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.to(memory_format=torch.channels_last) if last and len(shape) == 4 else x


def operands(images, inputs, outputs, height, width, **options):
    weight = draw(1, outputs, inputs, 3, 3, **options)
    return draw(0, images, inputs, height, width, **options), weight, draw(2, outputs, **options)


def exact(input, weight, bias=None, relu=False):
    out = F.conv2d(*(None if x is None else x.double() for x in (input, weight, bias)), padding=1)
    return out.relu() if relu else out


def relative(actual, expected):
    expected = expected.detach()
    return float((actual.detach().double() - expected).norm() / expected.norm().clamp_min(1e-300))


@pytest.fixture
def calls(monkeypatch):
    """The names of the C functions that are called."""
    names, call = [], conv_in_c._call

    def counted(function, *arguments):
        names.append(function.__name__)
        call(function, *arguments)

    monkeypatch.setattr(conv_in_c, "_call", counted)
    return names


@pytest.fixture
def always_tiles(monkeypatch):
    """The weight's transform made out to be free beyond measure."""
    monkeypatch.setattr(conv_in_c, "WEIGHT_TILES", -(10**9))


@pytest.fixture
def no_compiler(monkeypatch):
    monkeypatch.setattr(compiler, "load", lambda source: None)
    conv_in_c._libraries.cache_clear()
    yield
    conv_in_c._libraries.cache_clear()


@compiled
@EXAMPLES
@given(
    images=st.integers(1, 3),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    inputs=st.sampled_from((16, 32, 48, 64, 96, 128)),
    outputs=st.sampled_from((1, 16, 32, 48, 64, 128)),
    biased=st.booleans(),
    relu=st.booleans(),
)
def test_every_size_and_number_of_channels(always_tiles, calls, images, size, inputs, outputs, biased, relu):
    calls.clear()
    input, weight, bias = operands(images, inputs, outputs, *size)
    bias = bias if biased else None
    result, expected = kernels.same_conv2d(input, weight, bias, relu=relu), exact(input, weight, bias, relu)
    assert calls == ["conv3x3_to_one" if outputs == 1 else "conv3x3"]
    assert result.stride() == F.conv2d(input, weight, padding=1).stride()
    assert (result - expected).abs().max() < 1e-5 * exact(input, weight, bias).abs().max()


@compiled
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4), (5, 8), (64, 1), (23, 42)])
@pytest.mark.parametrize("channels", [(32, 32), (64, 128), (32, 1), (1, 32)])
def test_gradients_of_every_size(always_tiles, calls, size, channels):
    single = [x.requires_grad_() for x in operands(3, *channels, *size)]
    double = [x.detach().double().requires_grad_() for x in single]
    result, expected = kernels.same_conv2d(*single), exact(*double)
    seed = draw(3, *expected.shape)
    gradients = torch.autograd.grad(result, single, seed)
    for ours, wanted in zip(gradients, torch.autograd.grad(expected, double, seed.double()), strict=True):
        assert ours.shape == wanted.shape
        assert relative(ours, wanted) < 3e-6
    forward = {(32, 1): ["conv3x3_to_one"], (1, 32): []}.get(channels, ["conv3x3"])
    turned = {(32, 1): [], (1, 32): ["conv3x3_to_one"]}.get(channels, ["conv3x3"])
    thin = "to_one_" if 1 in channels else ""
    assert calls == [*forward, *turned, f"conv3x3_{thin}weight_gradient"]


@compiled
@pytest.mark.parametrize(
    ("shape", "served"),
    [
        ((1, 32, 32, 64, 64), True),
        ((1, 32, 32, 16, 16), True),
        ((1, 32, 32, 12, 12), False),  # so few tiles
        ((1, 64, 128, 1, 256), False),  # tiles that are three quarters empty
        ((64, 32, 32, 5, 5), True),
        ((1, 32, 12, 64, 64), False),
        ((1, 12, 32, 64, 64), False),
        ((1, 32, 1, 2, 2), True),
        ((1, 1, 32, 64, 64), False),
    ],
)
def test_where_the_c_sources_are_taken(calls, shape, served):
    input, weight, bias = operands(*shape)
    result = kernels.same_conv2d(input, weight, bias, relu=True)
    assert bool(calls) == served
    assert relative(result, exact(input, weight, bias, relu=True)) < 1e-6
    kernels.same_conv2d(input.double(), weight.double(), bias.double())
    kernels.same_conv2d(input, weight[:, :, 1:2], bias)
    planes = [x.contiguous() for x in (input, weight)]
    kernels.same_conv2d(*planes, bias)
    assert len(calls) == served


@compiled
def test_either_operand_decides_the_layout(calls):
    input, weight, _ = operands(2, 32, 32, 40, 30)
    expected = exact(input, weight)
    wide = draw(0, 2, 64, 40, 30)
    views = {
        "planes": (input.contiguous(), weight),
        "weight of planes": (input, weight.contiguous()),
        "slice of channels": (wide[:, 16:48], weight),
        "turned": (input.mT.contiguous(memory_format=torch.channels_last).mT, weight),
        "expanded": (input[:1].expand(2, -1, -1, -1), weight),
    }
    for name, (x, w) in views.items():
        result = kernels.same_conv2d(x, w)
        assert result.is_contiguous(memory_format=torch.channels_last), name
        assert relative(result, exact(x, w)) < 1e-6, name
    assert calls == ["conv3x3"] * len(views)
    assert relative(kernels.same_conv2d(input.contiguous(), weight), expected) < 1e-6


@compiled
def test_the_networks_case_is_nearly_as_exact_as_the_direct_sum():
    input, weight, bias = operands(1, 32, 32, 128, 128)
    assert relative(kernels.same_conv2d(input.relu(), weight, bias), exact(input.relu(), weight, bias)) < 7e-7


@compiled
def test_equal_with_every_number_of_threads():
    threads = torch.get_num_threads()
    input, weight, bias = operands(2, 32, 64, 50, 33)
    results, gradients = [], []
    try:
        for count in (1, 2, 3, 3):
            torch.set_num_threads(count)
            leaf = weight.clone().requires_grad_()
            out = kernels.same_conv2d(input, leaf, bias)
            results.append(out.detach())
            gradients += torch.autograd.grad(out.square().sum(), leaf)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)
    assert torch.equal(gradients[2], gradients[3])
    assert relative(gradients[1], gradients[0].double()) < 3e-6


@compiled
def test_calls_from_several_threads_keep_apart():
    cases = [operands(1, 32, 32, 40 + 8 * k, 64) for k in range(4)]
    expected, found = [kernels.same_conv2d(*case) for case in cases], [None] * 4

    def run(k):
        found[k] = kernels.same_conv2d(*cases[k])

    workers = [Thread(target=run, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@compiled
@pytest.mark.parametrize("channels", [(16, 16), (16, 1)])
def test_a_bad_pixel_stays_within_its_tiles(channels):
    input, weight, bias = operands(1, *channels, 40, 40)
    input[0, 3, 20, 21] = torch.nan
    result = kernels.same_conv2d(input, weight, bias, relu=True)
    spoilt = result.isnan().any(dim=1)[0]
    assert spoilt[19:22, 20:23].all()
    assert not spoilt[:16].any()
    assert not spoilt[24:].any()
    assert not spoilt[:, :16].any()
    assert not spoilt[:, 24:].any()


def test_without_a_compiler_the_library_does_it(no_compiler, calls):
    case = [x.requires_grad_() for x in operands(1, 32, 32, 40, 40)]
    result = kernels.same_conv2d(*case, relu=True)
    assert torch.equal(result, F.conv2d(*case, padding=1).relu())
    torch.autograd.grad(result.sum(), case)
    assert calls == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("window", [(3, 3), (1, 1), (5, 3)])
@pytest.mark.parametrize("relu", [False, True])
def test_every_dtype_layout_and_window(dtype, layout, window, relu):
    images = draw(0, 2, 5, 13, 11).to(dtype).contiguous(memory_format=LAYOUTS[layout])
    weight = draw(1, 7, 5, *window).to(dtype).contiguous(memory_format=LAYOUTS[layout])
    bias = draw(2, 7).to(dtype)
    expected = F.conv2d(images, weight, bias, padding=[size // 2 for size in window])
    result = kernels.same_conv2d(images, weight, bias, relu=relu)
    assert result.stride() == expected.stride()
    torch.testing.assert_close(result, expected.relu() if relu else expected)
    assert kernels.same_conv2d(images[:0], weight, bias, relu=relu).shape == (0, 7, 13, 11)


def test_gradients_with_rectifier():
    arguments = [x.requires_grad_() for x in operands(1, 2, 3, 5, 4, dtype=torch.float64)]
    assert torch.autograd.gradcheck(partial(kernels.same_conv2d, relu=True), arguments)
    single = [x.requires_grad_() for x in operands(2, 32, 32, 20, 20)]
    double = [x.detach().double().requires_grad_() for x in single]
    ours = torch.autograd.grad(kernels.same_conv2d(*single, relu=True).square().sum(), single)
    wanted = torch.autograd.grad(exact(*double, relu=True).square().sum(), double)
    assert all(relative(a, b) < 1e-5 for a, b in zip(ours, wanted, strict=True))


def test_gradients_of_some_operands_and_without_bias():
    input, weight, _ = operands(1, 32, 32, 20, 20)
    for chosen in ((input,), (weight,)):
        chosen[0].requires_grad_()
        (grad,) = torch.autograd.grad(kernels.same_conv2d(input, weight).sum(), chosen)
        double = [x.detach().double().requires_grad_() for x in (input, weight)]
        index = 0 if chosen[0] is input else 1
        assert relative(grad, torch.autograd.grad(exact(*double).sum(), double)[index]) < 3e-6
        chosen[0].requires_grad_(False)


def test_second_derivatives():
    def penalty(convolution, *case):
        (slope,) = torch.autograd.grad(convolution(*case).square().sum(), case[0], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), case)

    single = [x.requires_grad_() for x in operands(1, 16, 16, 20, 20)]
    double = [x.detach().double().requires_grad_() for x in single]
    pairs = zip(penalty(kernels.same_conv2d, *single), penalty(exact, *double), strict=True)
    assert all(relative(a, b) < 1e-5 for a, b in pairs)


@pytest.mark.parametrize("shape", [(2, 32, 32, 24, 20), (2, 32, 1, 24, 20), (2, 1, 32, 24, 20)])
@pytest.mark.parametrize("tracked", [False, True])
def test_torch_compile_sees_one_graph(shape, tracked):
    torch.compiler.reset()
    case = [x.requires_grad_(tracked) for x in operands(*shape)]

    def function(*case):
        return kernels.same_conv2d(*case, relu=True) * 2

    result = torch.compile(function, fullgraph=True, backend="aot_eager")(*case)
    expected = 2 * exact(*case, relu=True)
    assert relative(result, expected) < 2e-6
    assert result.is_contiguous(memory_format=torch.channels_last)
    if tracked:
        seed = draw(3, *expected.shape)
        pairs = zip(
            torch.autograd.grad(result, case, seed),
            torch.autograd.grad(expected, case, seed.double()),
            strict=True,
        )
        assert all(relative(ours, theirs) < 1e-5 for ours, theirs in pairs)


@compiled
def test_registrations_are_consistent():
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    case = [x.requires_grad_() for x in operands(1, 16, 16, 20, 20)]
    opcheck(torch.ops.unfoldkit.small_conv2d.default, (*case, False), test_utils=checks)
    pair = (case[0].detach(), draw(3, 1, 16, 20, 20))
    opcheck(torch.ops.unfoldkit.small_conv2d_weight_gradient.default, pair, test_utils=checks[:2])


def test_torch_func_and_forward_mode():
    input, weight, bias = operands(3, 16, 16, 24, 24)
    batched = torch.func.vmap(lambda x: kernels.same_conv2d(x[None], weight, bias)[0])(input)
    torch.testing.assert_close(batched, kernels.same_conv2d(input, weight, bias), rtol=1e-4, atol=1e-4)
    slope = torch.func.grad(lambda w: kernels.same_conv2d(input, w, bias, relu=True).sum())(weight)
    leaf = weight.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(kernels.same_conv2d(input, leaf, bias, relu=True).sum(), leaf)
    torch.testing.assert_close(slope, wanted, rtol=1e-4, atol=1e-3)
    _, tangent = torch.func.jvp(lambda x: kernels.same_conv2d(x, weight), (input,), (input,))
    torch.testing.assert_close(tangent, kernels.same_conv2d(input, weight), rtol=1e-4, atol=1e-4)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(input, input)
        assert torch.autograd.forward_ad.unpack_dual(kernels.same_conv2d(dual, weight)).tangent is not None


def test_an_exported_graph_and_a_counted_one_hold_torchs_operators():
    input, weight, bias = operands(2, 32, 32, 40, 40)

    class Layer(torch.nn.Module):
        def forward(self, x):
            return kernels.same_conv2d(x, weight, bias, relu=True)

    program = torch.export.export(Layer(), (input,))
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("conv2d" in target for target in targets)
    assert not any("unfoldkit" in target for target in targets)
    with FlopCounterMode(display=False) as counter:
        kernels.same_conv2d(input, weight, bias)
    assert counter.get_total_flops() == 2 * input.numel() * 32 * 9


def test_under_autocast_it_is_conv2d():
    case = operands(1, 16, 16, 20, 20)
    with torch.autocast("cpu", torch.bfloat16):
        result = kernels.same_conv2d(*case, relu=True)
        assert torch.equal(result, F.conv2d(*case, padding=1).relu())
    assert result.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 2, 5, 5), (3, 4, 3, 3), (3,)), r"input \(1, 2, 5, 5\) and weight \(3, 4, 3, 3\) do not fit"),
        (((2, 5, 5), (3, 2, 3, 3), (3,)), r"input \(2, 5, 5\).*must be \(N, C, H, W\)"),
        (((1, 2, 5, 5), (3, 2, 2, 3), (3,)), r"h and w odd, got shape \(3, 2, 2, 3\)"),
        (((1, 2, 5, 5), (2, 3, 3), (3,)), r"weight must be \(O, C, h, w\)"),
        (((1, 2, 5, 5), (3, 2, 3, 3), (2,)), r"bias \(2,\) must have one entry"),
    ],
)
def test_bad_shapes_are_named(shapes, message):
    with pytest.raises(ValueError, match=message):
        kernels.same_conv2d(*(torch.ones(shape) for shape in shapes))


def test_mixed_dtypes_are_refused():
    input, weight, bias = operands(1, 16, 16, 20, 20)
    for case in ((input, weight.double(), bias), (input, weight, bias.double())):
        with pytest.raises(RuntimeError):
            kernels.same_conv2d(*case)
