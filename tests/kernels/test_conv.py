"""The large convolution: exact by tiles, for every size, with its gradients, and within its memory."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unfoldkit import kernels

EXAMPLES = settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def draw(seed, *shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def always_tiles(monkeypatch):
    """The direct method made out to be slow."""
    monkeypatch.setattr(sys.modules["unfoldkit.kernels.conv"], "DIRECT", 1e9)


def took_tiles(result):
    """Whether the result's graph holds the tiled operator."""
    node, names = result.grad_fn, []
    while node is not None:
        names.append(node.name())
        node = next((parent for parent, _ in node.next_functions if parent is not None), None)
    return any("tiled_conv2d" in name for name in names)


def relative(actual, expected):
    return float((actual.double() - expected).norm() / expected.norm().clamp_min(1e-300))


@EXAMPLES
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 130), st.integers(1, 130)),
    window=st.sampled_from(((17, 17), (5, 5), (15, 7), (1, 31), (33, 33))),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    margin=st.sampled_from(("same", (3, 8), (40, 0), 18)),
)
def test_tiles_equal_the_direct_convolution(always_tiles, seed, size, window, channels, margin):
    images, weight = draw(seed, 2, channels[0], *size), draw(seed + 1, channels[1], channels[0], *window)
    pads = (
        (window[0] // 2, window[1] // 2) if margin == "same" else (margin, margin) if margin == 18 else margin
    )
    if any(s + 2 * p < w for s, p, w in zip(size, pads, window, strict=True)):
        with pytest.raises(ValueError, match="leave nothing"):
            kernels.large_kernel_conv2d(images, weight, padding=margin)
        return
    images, weight = images.requires_grad_(), weight.requires_grad_()
    bias = draw(seed + 2, channels[1])
    result = kernels.large_kernel_conv2d(images, weight, bias, margin)
    expected = F.conv2d(images, weight, bias, padding=margin)
    assert result.shape == expected.shape
    assert relative(result, expected) < 1e-13
    seed_gradient = draw(seed + 3, *expected.shape)
    grads = torch.autograd.grad(result, (images, weight), seed_gradient)
    for grad, wanted in zip(
        grads, torch.autograd.grad(expected, (images, weight), seed_gradient), strict=True
    ):
        assert relative(grad, wanted) < 1e-13
    (alone,) = (
        torch.autograd.grad(kernels.large_kernel_conv2d(images.detach(), weight), weight, seed_gradient)
        if (margin == "same")
        else (grads[1],)
    )
    assert relative(alone, grads[1]) < 1e-13


def test_single_precision_error_of_the_networks_case():
    images, weight = draw(0, 1, 32, 128, 160), draw(1, 32, 32, 17, 17) / 100
    single = [x.float().requires_grad_() for x in (images, weight)]
    expected = [x.requires_grad_() for x in (images, weight)]
    result, exact = kernels.large_kernel_conv2d(*single), kernels.large_kernel_conv2d(*expected)
    assert took_tiles(result)
    assert relative(result, exact) < 1e-5
    grads = torch.autograd.grad(result, single, torch.ones_like(result))
    for grad, wanted in zip(grads, torch.autograd.grad(exact, expected, torch.ones_like(exact)), strict=True):
        assert relative(grad, wanted) < 1e-5


def test_a_cached_spectrum_serves_every_size():
    weight = draw(0, 3, 2, 17, 17, dtype=torch.float32)
    spectrum = kernels.conv_spectrum(weight)
    for size in ((5, 9), (64, 64), (100, 301)):
        images = draw(1, 4, 2, *size, dtype=torch.float32)
        exact = F.conv2d(images.double(), weight.double(), padding=8)
        assert relative(kernels.large_kernel_conv2d(images, weight, spectrum=spectrum), exact) < 1e-5


def test_small_windows_and_few_channels_go_direct():
    images, weight = draw(0, 1, 2, 32, 32).requires_grad_(), draw(1, 2, 2, 3, 3)
    result = kernels.large_kernel_conv2d(images, weight)
    assert not took_tiles(result)
    assert torch.equal(result, F.conv2d(images, weight, padding=1))


def test_half_precision_and_autocast_behave_as_conv2d():
    images, weight = draw(0, 1, 32, 64, 64, dtype=torch.float32), draw(1, 32, 32, 17, 17, dtype=torch.float32)
    half = kernels.large_kernel_conv2d(images.bfloat16(), weight.bfloat16())
    assert half.dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        mixed = kernels.large_kernel_conv2d(images, weight.bfloat16(), spectrum=kernels.conv_spectrum(weight))
        triplet = kernels.leading_singular_triplet(images)
        step = kernels.singular_value_threshold(images, 0.3)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(triplet, kernels.leading_singular_triplet(images))
    torch.testing.assert_close(step, kernels.singular_value_threshold(images, 0.3))


def test_leading_axes_empty_batches_and_strides(always_tiles):
    weight = draw(0, 3, 2, 17, 17)
    images = draw(1, 2, 3, 2, 40, 30)
    flat = kernels.large_kernel_conv2d(images.flatten(0, 1), weight)
    torch.testing.assert_close(kernels.large_kernel_conv2d(images, weight), flat.unflatten(0, (2, 3)))
    torch.testing.assert_close(kernels.large_kernel_conv2d(images[0, 0], weight), flat[0])
    assert kernels.large_kernel_conv2d(images[:0], weight).shape == (0, 3, 3, 40, 30)
    turned = images[0].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(kernels.large_kernel_conv2d(turned, weight), flat[:3])
    expanded = images[0, :1].expand(4, 2, 40, 30)
    torch.testing.assert_close(kernels.large_kernel_conv2d(expanded, weight)[3], flat[0])


def test_bad_input_says_what_is_wrong():
    images, weight = torch.ones(1, 2, 20, 20), torch.ones(3, 2, 17, 17)
    for bad in (
        (images[:, :1], weight),
        (images, weight[..., :16]),
        (images[0, 0], weight),
        (images, weight[0]),
    ):
        with pytest.raises(ValueError, match=r"\("):
            kernels.large_kernel_conv2d(*bad)
    with pytest.raises(ValueError, match=r"bias \(2,\).*\(3, 2, 17, 17\)"):
        kernels.large_kernel_conv2d(images, weight, torch.ones(2))
    with pytest.raises(ValueError, match="padding"):
        kernels.large_kernel_conv2d(images, weight, padding="reflect")
    with pytest.raises(ValueError, match="dtype"):
        kernels.large_kernel_conv2d(images, weight.double())
    with pytest.raises(ValueError, match="spectrum"):
        kernels.large_kernel_conv2d(images, weight, spectrum=kernels.conv_spectrum(weight[:2]))
    with pytest.raises(ValueError, match="meta"):
        kernels.large_kernel_conv2d(images, weight.to("meta"))


@pytest.mark.parametrize("given", ["weight", "spectrum"])
@pytest.mark.parametrize("padding", ["same", "valid", (1, 4)])
def test_second_and_third_derivatives_of_tiles(always_tiles, padding, given):
    images, weight = draw(0, 1, 2, 7, 6).requires_grad_(), draw(1, 2, 2, 5, 3).requires_grad_()
    spectrum = kernels.conv_spectrum(weight.detach(), (7, 6)) if given == "spectrum" else None
    margin = {"same": (2, 1), "valid": 0}.get(padding, padding)

    def derivatives(convolve):
        loss, found = convolve(images, weight).pow(3).sum(), []
        for _ in range(3):
            found += torch.autograd.grad(loss, (images, weight), create_graph=True)
            loss = sum(g.pow(2).sum() for g in found[-2:])
        return found

    def convolve(images, weight):
        return kernels.large_kernel_conv2d(images, weight, None, padding, spectrum=spectrum)

    expected = derivatives(lambda images, weight: F.conv2d(images, weight, padding=margin))
    for actual, exact in zip(derivatives(convolve), expected, strict=True):
        torch.testing.assert_close(actual, exact, rtol=1e-9, atol=1e-9 * exact.abs().max().item())


@pytest.mark.parametrize(
    ("shape", "outputs", "given"), [((1, 32, 64, 64), 32, "weight"), ((2, 8, 96, 70), 6, "spectrum")]
)
def test_second_derivatives_where_tiles_are_chosen(shape, outputs, given):
    """In single precision at sizes that networks have, against the tiles of the test above in double."""

    def second(dtype):
        images = draw(0, *shape).to(dtype).requires_grad_()
        weight = draw(1, outputs, shape[1], 17, 17).to(dtype).requires_grad_()
        spectrum = kernels.conv_spectrum(weight.detach()) if given == "spectrum" else None
        out = kernels.large_kernel_conv2d(images, weight, spectrum=spectrum)
        assert took_tiles(out)
        (first,) = torch.autograd.grad(out.pow(2).sum(), images, create_graph=True)
        return torch.autograd.grad(first.pow(2).sum(), (images, weight))

    for actual, exact in zip(second(torch.float32), second(torch.float64), strict=True):
        assert relative(actual, exact) < 1e-5


PEAK = """
import sys, torch
import torch.nn.functional as F
from unfoldkit import kernels
from unfoldkit.tools.benchmarks.timing import resident

tiles = sys.argv[1] == "tiles"
small, tiny = torch.randn(2, 2, 17, 17), torch.randn(1, 2, 24, 24)
F.conv2d(tiny, small, padding=8)
kernels.large_kernel_conv2d(tiny, small, spectrum=kernels.conv_spectrum(small))
before = resident("VmRSS")
images, weight = torch.randn(1, 32, 256, 256), torch.randn(32, 32, 17, 17)
open("/proc/self/clear_refs", "w").write("5")
result = kernels.large_kernel_conv2d(images, weight) if tiles else F.conv2d(images, weight, padding=8)
print((resident("VmHWM") - before) / 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory_is_at_most_three_times_the_direct_one():
    """Resident memory at 256 x 256, operands and result included, each way in a process of its own."""
    peak = {}
    for way in ("direct", "tiles"):
        run = subprocess.run([sys.executable, "-c", PEAK, way], capture_output=True, text=True, check=True)
        peak[way] = float(run.stdout)
    print(f"peak MiB: {peak}")
    assert peak["tiles"] <= 3 * peak["direct"]
