"""The kernels of training on a GPU, run by Triton's interpreter on the CPU, against PyTorch's layers one by one.

The interpreter is chosen when a kernel is defined, so the cases run in a process of their own.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import os
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from two_processes import said_by_two

from unfoldkit.kernels.dispatch import spectral_product

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
case = pytest.mark.skipif(not INTERPRETED, reason="run by test_in_the_interpreter")
LAST = torch.channels_last


@pytest.mark.skipif(INTERPRETED, reason="is the caller")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    run = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    print(run.stdout)
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout


def randoms(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def assert_near(found, expected, bound=2e-6):
    error = (found.double() - expected).norm() / expected.norm().clamp_min(1e-30)
    assert float(error) < bound


def assert_same_function(fused, layers, *inputs, outputs=1, bound=2e-6):
    """Values and gradients of both, the latter in double precision."""
    torch.manual_seed(0)
    single = [x.clone().requires_grad_() for x in inputs]
    double = [x.double().requires_grad_() for x in inputs]
    found, expected = fused(*single), layers(*double)
    found, expected = (x if outputs > 1 else (x,) for x in (found, expected))
    weights = [torch.randn_like(x) for x in found]
    for one, other in zip(found, expected, strict=True):
        assert_near(one.detach(), other.detach())
    grads = torch.autograd.grad(found, single, weights)
    wanted = torch.autograd.grad(expected, double, [x.double() for x in weights])
    for one, other in zip(grads, wanted, strict=True):
        assert_near(one, other, bound)


@case
@pytest.mark.parametrize("last_relu", [False, True])
def test_a_run_from_one_channel_to_one(last_relu):
    from unfoldkit.kernels import fused

    x, *parameters = randoms(
        0, (2, 1, 7, 11), (16, 1, 3, 3), (16, 16, 3, 3), (1, 16, 3, 3), (16,), (16,), (1,)
    )
    if last_relu:
        del parameters[5], parameters[2]
    count = len(parameters) // 2

    def run(x, *parameters):
        return fused.conv_run(x, parameters[:count], parameters[count:], last_relu)

    def layers(x, *parameters):
        for index in range(count):
            x = F.conv2d(x, parameters[index], parameters[count + index], padding=1)
            x = x.relu() if index < count - 1 or last_relu else x
        return x

    assert_same_function(run, layers, x, *parameters)


@case
def test_a_residual_block():
    from unfoldkit.kernels import fused

    inputs = randoms(1, (2, 16, 5, 9), (16, 16, 3, 3), (16, 16, 3, 3), (16,), (16,))
    assert_same_function(
        lambda x, v, w, a, b: fused.conv_run(x, [v, w], [a, b], residual=True),
        lambda x, v, w, a, b: x + F.conv2d(F.conv2d(x, v, a, padding=1).relu(), w, b, padding=1),
        *inputs,
    )


@case
@pytest.mark.parametrize("slope", [0.0, 0.1, 1.0])
def test_batch_norm_with_its_activation(slope):
    from unfoldkit.kernels import fused

    x, weight, bias, added, mean, variance = randoms(2, (3, 16, 6, 5), *[(16,)] * 5)
    x, variance, means = x + 50, variance.abs(), [mean.clone(), mean.double()]
    variances = [variance.clone(), variance.double()]
    assert_same_function(
        lambda x, w, b: fused.norm_activation(x, means[0], variances[0], w, b, 0.1, 1e-5, slope, added),
        lambda x, w, b: F.leaky_relu(
            F.batch_norm(x + added.double()[:, None, None], means[1], variances[1], w, b, True, 0.1, 1e-5),
            slope,
        ),
        *(x, weight, bias),
    )
    assert_near(means[0], means[1])
    assert_near(variances[0], variances[1])


def gated_memory(gates, bias, *cell):
    """Hidden state and cell; there is no cell at first."""
    *f, i, o, j = (gates + bias[:, None, None]).chunk(3 + len(cell), dim=1)
    product = i.sigmoid() * j.tanh()
    if not cell:
        return o.sigmoid() * product, product
    product = f[0].sigmoid() * cell[0] + product
    return o.sigmoid() * product.tanh(), product


@case
@pytest.mark.parametrize("first", [False, True])
def test_lstm(first):
    from unfoldkit.kernels import fused

    gates, bias, cell = randoms(3, (2, 48 if first else 64, 5, 7), (48 if first else 64,), (2, 16, 5, 7))
    inputs = [gates, bias, *([] if first else [cell.contiguous(memory_format=LAST)])]

    def in_one(gates, bias, *cell):
        return fused.lstm(gates, bias, cell[0] if cell else None)

    assert_same_function(in_one, gated_memory, *inputs, outputs=2)


@case
@pytest.mark.parametrize("first", [False, True])
def test_an_lstm_step_whose_convolution_the_library_computes(first):
    from unfoldkit.kernels import LSTMStep
    from unfoldkit.kernels.features import SCALE

    shape, bias = (48, 16, 3, 3) if first else (64, 32, 3, 3), 48 if first else 64
    weight, bias, z, hidden, cell = randoms(4, shape, (bias,), *[(2, 16, 5, 7)] * 3)
    step = LSTMStep(weight / 12, bias).float()
    given = z if first else torch.cat((z, hidden), 1)
    gates = F.conv2d(given.double(), step.weight.double() * SCALE, padding=1)
    expected = gated_memory(gates, bias.double(), *([] if first else [cell.double()]))
    with torch.no_grad():
        found = step._apart(SCALE * z, None if first else (SCALE * hidden, SCALE * cell))
    for one, other in zip(found, expected, strict=True):
        assert_near(one / SCALE, other)


WORKER = """
from unfoldkit.kernels import fused
from unfoldkit.rpcanet.training.distributed import average, over_processes

fused.serves = lambda *_: True
stack, x, weight = torch.load(data, weights_only=False)
over_processes(stack)
x, weight = (part.chunk(2)[int(rank)] for part in (x, weight))
x.requires_grad_()
out = stack(x)
(out * weight).sum().backward()
gradients = [parameter.grad for parameter in stack.parameters()]
average(gradients)
torch.save((out.detach(), x.grad, gradients, list(stack.buffers())), f"{data}-{rank}")
"""


@case
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_a_stack_over_two_processes_runs_as_its_layers_over_both_batches(tmp_path, mean):
    """The gradients of parameters are the mean over processes, those of the sum of both losses over two."""
    from unfoldkit.rpcanet.modules.layers import BatchNorm, Stack, conv3x3

    torch.manual_seed(0)
    rectified = [BatchNorm(16), torch.nn.LeakyReLU(0.1), conv3x3(16, 16), BatchNorm(16), torch.nn.ReLU()]
    stack = Stack(*rectified, conv3x3(16, 1)).to(memory_format=LAST)
    x = (torch.randn(4, 16, 5, 7) * torch.arange(1, 5.0).view(4, 1, 1, 1) + mean).contiguous(
        memory_format=LAST
    )
    weight = torch.randn(4, 1, 5, 7)
    torch.save((stack, x, weight), tmp_path / "data.pt")
    said_by_two(WORKER, tmp_path / "data.pt")
    found = [torch.load(tmp_path / f"data.pt-{rank}") for rank in "01"]

    layers, x = deepcopy(stack).double(), x.double().requires_grad_()
    expected = layers(x)
    (expected * weight).sum().backward()
    assert_near(torch.cat([out for out, *_ in found]), expected.detach())
    assert_near(torch.cat([grad for _, grad, *_ in found]), x.grad, 1e-5)
    for _, _, gradients, buffers in found:
        for one, other in zip(gradients, layers.parameters(), strict=True):
            if float(other.grad.norm()) > 1e-9:  # a bias before a batch norm has none
                assert_near(2 * one, other.grad, 1e-5)
        for one, other in zip(buffers, layers.buffers(), strict=True):
            assert_near(one.double(), other.double())


@case
def test_features_gated_and_their_mean():
    from unfoldkit.kernels import fused

    theta, x, y = randoms(6, (2, 16, 1, 1), (2, 16, 9, 15), (2, 16, 9, 15))
    assert_same_function(fused.gated, lambda theta, x, y: theta * x + y, theta, x, y)
    assert_same_function(fused.mean, lambda x: x.mean((2, 3), keepdim=True), x)


@case
def test_a_contrast_prior_runs_as_its_layers(monkeypatch):
    from unfoldkit.kernels import fused
    from unfoldkit.rpcanet.modules.dcpm import CentralContrast

    torch.manual_seed(0)
    contrast, (x,) = CentralContrast(16), randoms(7, (3, 16, 9, 15))
    layers = deepcopy(contrast).double()
    monkeypatch.setattr(fused, "serves", lambda x, _: x.dtype == torch.float32)
    x = x.contiguous(memory_format=LAST)
    assert_same_function(contrast, layers, x, bound=1e-5)  # its gate normalises three numbers


@case
@pytest.mark.parametrize("kind", ["batch norms", "no norms", "prior's end", "norms over processes"])
def test_a_stack_of_layers_runs_as_its_layers(kind, monkeypatch):
    from unfoldkit.kernels import fused
    from unfoldkit.rpcanet.modules.layers import BatchNorm, Stack, conv3x3, conv_stack
    from unfoldkit.rpcanet.training.distributed import over_processes

    torch.manual_seed(0)
    if kind == "prior's end":
        stack, x = Stack(BatchNorm(16), torch.nn.LeakyReLU(0.1), conv3x3(16, 1)), torch.randn(2, 16, 5, 7)
    else:
        stack, x = conv_stack(16, hidden=1, batch_norm=kind != "no norms"), torch.randn(2, 1, 5, 7)
    layers = deepcopy(stack).double()
    if kind == "norms over processes":
        over_processes(stack)
    expected = layers(x.double())
    monkeypatch.setattr(fused, "serves", lambda *_: True)
    found = stack(x)
    assert_near(found.detach(), expected.detach())
    weight = torch.randn_like(found)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for one, other in zip(stack.parameters(), layers.parameters(), strict=True):
        if float(other.grad.norm()) > 1e-9:  # a bias before a batch norm has none
            assert_near(one.grad, other.grad, 1e-5)
    for one, other in zip(stack.buffers(), layers.buffers(), strict=True):
        assert_near(one.double(), other.double())


@case
@pytest.mark.parametrize(("before", "size"), [(8, 32), (0, 16)])
def test_tiles(before, size):
    from unfoldkit.kernels.gpu import tiles

    (images,), two = randoms(4, (2, 4, 20, 17)), torch.tensor(2.0)
    images, grid = images.contiguous(memory_format=LAST), spectral_product.Grid(32, 16, 2, 2, 20, 17)
    cut = tiles.cut(images, two, torch.float32, 2, 2, 16, size, before)
    join = tiles.join(cut, two, (2, 20, 17), torch.float32, 2, 2, 16, before)
    if before:
        expected = spectral_product.overlapping_tiles(images, two, torch.float32, grid, 17)
        assert torch.equal(join, spectral_product.added_up(expected, images, two, grid, 17))
    else:
        expected = spectral_product.separate_tiles(images, two, torch.float32, grid)
        assert torch.equal(join, spectral_product.side_by_side(expected, images, two, grid))
    assert torch.equal(cut, expected)


@pytest.mark.skipif(INTERPRETED, reason="needs no interpreter")
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-6), (torch.bfloat16, 4e-3)]
)
@pytest.mark.parametrize("size", [(40, 33), (100, 70), (5, 9)])
def test_a_window_by_products_and_its_gradients(dtype, bound, size):
    """Also of gradients as small as those of a mean over many pixels, which float16 would lose."""
    images, weight, grad = (x.to(dtype) for x in randoms(5, (2, 4, *size), (6, 4, 17, 17), (2, 6, *size)))
    images, grad = images.contiguous(memory_format=LAST), grad * 1e-9
    exact = [x.double().clone().requires_grad_() for x in (images, weight)]
    expected = F.conv2d(*exact, padding=8)
    wanted = torch.autograd.grad(expected, exact, grad.double())
    grid = spectral_product.grid_of(17, *size)
    found = spectral_product.correlate(images, weight, grid)
    gradients = spectral_product.gradients(grad, found, 17, grid)
    assert found.out.dtype == gradients[0].dtype == dtype
    for one, other in zip((found.out, *gradients), (expected.detach(), *wanted), strict=True):
        assert_near(one, other, bound)
