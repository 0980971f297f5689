"""Batch norm in training, against `F.batch_norm` in double precision."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import sys
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unfoldkit import kernels
from unfoldkit.rpcanet.modules.layers import BatchNorm

LAYOUTS = {"channels-last": torch.channels_last, "planes": torch.contiguous_format}
SIZES = [
    (2, 32, 1, 1),
    (1, 32, 1, 7),
    (3, 8, 5, 1),
    (2, 96, 13, 9),
    (3, 7, 6, 11),
    (1, 1, 8, 8),
    (4, 32, 64, 64),
]


def draw(*shape, seed=0, mean=0.0, dtype=torch.float32, layout=torch.channels_last):
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + mean
    values = values.to(dtype)
    return values.to(memory_format=layout) if values.ndim == 4 else values


def parameters(channels, dtype=torch.float32):
    return draw(channels, seed=1, mean=1, dtype=dtype), draw(channels, seed=2, dtype=dtype)


def statistics(channels):
    return torch.zeros(channels), torch.ones(channels)


def library(input, running_mean, running_var, weight=None, bias=None, momentum=0.1, eps=1e-5):
    return F.batch_norm(input, running_mean, running_var, weight, bias, True, momentum, eps)


def everything(function, input, weight, bias, dtype, **options):
    """Output, running statistics and the gradients of input, weight and bias."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in (input, weight, bias)]
    running = [x.to(dtype) for x in statistics(len(weight))]
    out = function(leaves[0], *running, *leaves[1:], **options)
    seed = draw(*input.shape, seed=3, mean=0.3).to(dtype)
    return out.detach(), *running, *torch.autograd.grad(out, leaves, seed)


def relative(actual, expected):
    return float((actual.double() - expected).norm() / expected.norm().clamp_min(1e-30))


@pytest.fixture
def served():
    """A record of the calls that F.batch_norm does not serve alone."""
    function = sys.modules["unfoldkit.kernels.batch_norm"]._BatchNorm
    with patch.object(function, "apply", wraps=function.apply) as record:
        yield record


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_equals_double_precision(shape, layout):
    case = (draw(*shape, mean=0.5, layout=LAYOUTS[layout]), *parameters(shape[1]))
    found = everything(kernels.batch_norm, *case, torch.float32, momentum=0.3, eps=1e-3)
    expected = everything(library, *case, torch.float64, momentum=0.3, eps=1e-3)
    for actual, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(actual.double(), exact, rtol=1e-4, atol=1e-5)
    assert found[0].stride() == F.batch_norm(case[0], *statistics(shape[1]), training=True).stride()


@pytest.mark.parametrize("mean", [0, 3, 100])
def test_keeps_the_digits_that_the_library_loses(served, mean):
    case = (draw(4, 32, 128, 128, mean=mean), *parameters(32))
    expected = everything(library, *case, torch.float64)
    ways = [everything(way, *case, torch.float32) for way in (kernels.batch_norm, library)]
    ours, theirs = ([relative(a, b) for a, b in zip(way, expected, strict=True)] for way in ways)
    assert served.call_count == 1
    assert all(a < b / 2 for a, b in zip(ours, theirs, strict=True))
    bounds = [1e-7 * (2 + mean), 2e-6, 1e-7, 1e-6 + 1e-7 * mean, 1e-5 * (1 + mean), 1e-6]
    assert all(error < bound for error, bound in zip(ours, bounds, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("level", [1.0, 3333.3, 1e7, -7.7e8])
def test_a_constant_becomes_zero(level, layout, dtype):
    input = torch.full((2, 16, 7, 13), level, dtype=dtype).to(memory_format=LAYOUTS[layout])
    mean, variance = (x.to(dtype) for x in statistics(16))
    out = kernels.batch_norm(input, mean, variance, momentum=0.25)
    assert out.abs().max() == 0
    torch.testing.assert_close(
        mean, input[0, :, 0, 0] / 4, rtol=1e-6 if dtype != torch.bfloat16 else 1e-2, atol=0
    )
    torch.testing.assert_close(variance, torch.full_like(variance, 0.75))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mean_of_ten_thousand_deviations(layout):
    input = draw(4, 8, 33, 20, mean=1e4, layout=LAYOUTS[layout])
    case = (input, *parameters(8))
    found = everything(kernels.batch_norm, *case, torch.float32)
    expected = everything(library, *case, torch.float64)
    assert all(relative(a, b) < 1e-6 for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("shape", [(8, 5), (8, 5, 7), (2, 3, 4, 5, 6)])
def test_a_constant_of_other_shapes(shape):
    assert kernels.batch_norm(torch.full(shape, 1e7), None, None).abs().max() == 0


@pytest.mark.parametrize("given", ["weight", "bias", "neither"])
def test_without_weight_bias_or_running_statistics(served, given):
    input, (weight, bias) = draw(2, 16, 9, 12), parameters(16)
    options = {"weight": {"weight": weight}, "bias": {"bias": bias}, "neither": {}}[given]
    leaf = input.clone().requires_grad_()
    seed = draw(2, 16, 9, 12, seed=3, mean=1)
    out = kernels.batch_norm(leaf, None, None, **options)
    double = input.double().requires_grad_()
    exact = library(double, None, None, **{name: x.double() for name, x in options.items()})
    assert served.call_count == 1
    assert relative(out.detach(), exact.detach()) < 1e-6
    gradients = [torch.autograd.grad(y, x, seed.to(y.dtype))[0] for x, y in ((leaf, out), (double, exact))]
    assert relative(*gradients) < 1e-6


def test_gradients_in_double_precision_and_second_ones():
    case = [
        x.requires_grad_() for x in (draw(2, 3, 4, 5, dtype=torch.float64), *parameters(3, torch.float64))
    ]

    def function(input, weight, bias):
        return kernels.batch_norm(input, None, None, weight, bias)

    assert torch.autograd.gradcheck(function, case)
    assert torch.autograd.gradgradcheck(function, case)


def test_second_gradients(served):
    def second(function, dtype):
        x, weight, bias = (x.to(dtype).requires_grad_() for x in (draw(2, 8, 6, 5), *parameters(8)))
        out = function(x, None, None, weight, bias)
        (first,) = torch.autograd.grad(out.square().mul(out).sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), (x, weight))

    found, expected = second(kernels.batch_norm, torch.float32), second(library, torch.float64)
    assert served.call_count == 1
    assert max(map(relative, found, expected)) < 1e-5


def test_same_bits_for_the_same_number_of_threads():
    threads = torch.get_num_threads()
    case = (draw(2, 32, 50, 33), *parameters(32))
    try:
        torch.set_num_threads(3)
        first, second = (everything(kernels.batch_norm, *case, torch.float32) for _ in range(2))
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_and_autocast_are_the_library(served, dtype):
    input = draw(2, 16, 9, 9, dtype=dtype)
    assert torch.equal(kernels.batch_norm(input, None, None), library(input, None, None))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(kernels.batch_norm(input, None, None), library(input, None, None))
    served.assert_not_called()


def test_transforms_and_forward_mode_are_the_library(served):
    input = draw(2, 16, 9, 9)

    def total(x):
        return kernels.batch_norm(x, None, None).square().mul(x).sum()

    leaf = input.clone().requires_grad_()
    torch.testing.assert_close(torch.func.grad(total)(input), torch.autograd.grad(total(leaf), leaf)[0])
    torch.func.jvp(total, (input,), (input,))
    assert served.call_count == 1


def test_torch_compile():
    torch.compiler.reset()
    norm, input = BatchNorm(16), draw(2, 16, 9, 9)
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(input), nn.BatchNorm2d(16)(input))
    assert norm.num_batches_tracked == 1


def test_single_values_and_shapes_that_do_not_fit_are_errors():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        kernels.batch_norm(draw(1, 16, 1, 1), None, None)
    with pytest.raises(ValueError, match=r"weight \(15,\) must have one entry for each channel"):
        kernels.batch_norm(draw(2, 16, 3, 3), None, None, torch.ones(15))
    with pytest.raises(ValueError, match="input must be"):
        kernels.batch_norm(draw(16), None, None)


@pytest.mark.parametrize("momentum", [0.1, None, 0.0])
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
def test_layer_is_batch_norm_2d(momentum, counted, tracked):
    norms = [kind(32, momentum=momentum, track_running_stats=tracked) for kind in (BatchNorm, nn.BatchNorm2d)]
    for norm in norms:
        norm.num_batches_tracked = norm.num_batches_tracked if counted else None
    for mean in (0, 2):
        input = draw(2, 32, 9, 12, mean=mean)
        torch.testing.assert_close(*(norm(input) for norm in norms), rtol=1e-5, atol=1e-5)
    ours, theirs = (norm.state_dict() for norm in norms)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(*(norm.eval()(input) for norm in norms), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="4D"):
        norms[0](torch.rand(2, 32))


def test_layer_becomes_synchronised():
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(BatchNorm(8)), nn.SyncBatchNorm)
