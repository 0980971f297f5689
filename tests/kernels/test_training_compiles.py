"""The kernels of training, compiled ahead of time without a GPU for the features they are used with."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import pytest

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from unfoldkit.kernels.gpu import batch_norm, gated, lstm, thin_conv, tiles  # noqa: E402

FLOATS = {"momentum", "eps", "slope"}
INTEGERS = {"height", "width", "pixels", "programs", "parts", "processes", "rows", "columns", "before"}
FEATURES = {
    "features",
    "relu_of",
    "out",
    "x",
    "grad",
    "gates",
    "hidden",
    "cell",
}
FEATURES |= {
    "y",
    "of_x",
    "theta",
    "of_hidden",
    "of_cell",
    "of_gates",
    "of_before",
    "found",
    "residual",
    "images",
    "tiles",
}
PLANES = {"SIGN": 1, "RELU": True, "MASK": True, "C": 32, "PIXELS": thin_conv.PIXELS}
TILES = {"C": 32, "STEP": 64, "SIZE": 80, "PIXELS": tiles.PIXELS}
NORM = {"C": 32, "PIXELS": batch_norm.PIXELS}
TOTALS = {"C": 32, "PARTS": batch_norm.PARTS}
GATES = {"FIRST": False, "C": 32, "PIXELS": lstm.PIXELS}
KERNELS = {
    "spread": (thin_conv.spread_kernel, PLANES),
    "gather": (thin_conv.gather_kernel, PLANES | {"SHARES": True, "PRODUCT": True}),
    "sum": (thin_conv.sum_kernel, {"SIGN": -1, "BIAS": True, "PIXELS": 512}),
    "sums": (batch_norm.sums_kernel, NORM | {"BACKWARD": True}),
    "statistics": (batch_norm.statistics_kernel, TOTALS | {"ALONE": True, "ADDED": True}),
    "statistics of processes": (batch_norm.statistics_kernel, TOTALS | {"ALONE": False, "ADDED": True}),
    "moments": (batch_norm.moments_kernel, TOTALS),
    "gradients": (batch_norm.gradients_kernel, TOTALS),
    "apply": (batch_norm.apply_kernel, NORM),
    "apply backward": (batch_norm.apply_backward_kernel, NORM),
    "lstm": (lstm.forward_kernel, GATES),
    "lstm of 64 channels": (lstm.forward_kernel, GATES | {"C": 64}),
    "lstm backward": (lstm.backward_kernel, GATES),
    "gated": (gated.gated_kernel, {"C": 32, "PIXELS": gated.PIXELS}),
    "gated sums": (gated.sums_kernel, {"GATED": True, "C": 32, "PIXELS": gated.PIXELS}),
    "cut": (tiles.cut_kernel, TILES),
    "join": (tiles.join_kernel, TILES),
}
SHARED = 227 * 1024  # bytes that a block may have on sm_90; sm_80 has 163 KiB
LATER = pytest.mark.slow


@pytest.mark.parametrize("architecture", [pytest.param(80, marks=LATER), 90, pytest.param(100, marks=LATER)])
@pytest.mark.parametrize("name", KERNELS)
def test_it_builds(name, architecture):
    kernel, constants = KERNELS[name]
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    kinds = dict.fromkeys(FLOATS, "fp32") | dict.fromkeys(INTEGERS, "i32") | dict.fromkeys(FEATURES, "*bf16")
    if "lstm" in name:
        kinds["before"] = "*bf16"
    kinds |= dict.fromkeys(constants, "constexpr")
    signature = {argument: kinds.get(argument, "*fp32") for argument in kernel.arg_names}
    options = {"num_warps": 4, "num_stages": 2}
    built = triton.compile(
        ASTSource(kernel, signature, constants), target=GPUTarget("cuda", architecture, 32), options=options
    )
    assert built.metadata.shared <= (163 * 1024 if architecture == 80 else SHARED)
