"""Every Triton kernel, compiled ahead of time without a GPU: it builds everywhere and spills no register.

One architecture and one dtype are fast; test_triton_interpreted.py runs every dtype.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import re
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from unfoldkit.kernels.gpu import low_rank, nonnegative  # noqa: E402

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
COMPILER = tuple(map(int, triton.__version__.split(".")[:2]))
LATER = pytest.mark.slow
ARCHITECTURES = (pytest.param(80, marks=LATER), 90, pytest.param(100, marks=LATER))
DTYPES = (
    torch.float32,
    *(pytest.param(dtype, marks=LATER) for dtype in (torch.float64, torch.complex64, torch.complex128)),
)
INTEGERS = ("n", "size", "full_exchanges", "limit")


def compile_kernel(kernel, dtype, constants, options, architecture):
    """Build a kernel for an architecture; it must spill no register and keep to 48 KiB of shared memory."""
    real = "fp64" if dtype.to_real() == torch.float64 else "fp32"
    kinds = {
        "guess": "*i32",
        "positive": "*i32",
        **dict.fromkeys(INTEGERS, "i32"),
        **dict.fromkeys(constants, "constexpr"),
    }
    signature = {name: kinds.get(name, f"*{real}") for name in kernel.arg_names}
    source = ASTSource(kernel, signature, constants)
    built = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
        cubin.write(built.asm["cubin"])
        cubin.flush()
        usage, code = (
            subprocess.run(
                [TOOLS / tool, *flags, cubin.name], capture_output=True, text=True, check=True
            ).stdout
            for tool, flags in (("cuobjdump", ["-res-usage"]), ("nvdisasm", []))
        )
    registers = max(int(found) for found in re.findall(r"REG:(\d+)", usage))
    spills = len(re.findall(r"\b(?:STL|LDL)\b", code))
    print(f"{kernel.__name__} {dtype} {constants} {options} sm_{architecture}: ", end="")
    print(f"{registers} registers, {built.metadata.shared} bytes shared, {spills} spills")
    if COMPILER >= (3, 8):  # older ones build the widest kernels with a few spills, or 64 KiB
        assert spills == 0
        assert built.metadata.shared <= 48 * 1024


def test_sizes_within_one_block_are_compiled_for_once():
    params = nonnegative.pivoting_kernel.params
    sizes = [p for p in params if p.name in ("n", "full_exchanges", "limit")]
    assert sizes
    assert all(p.do_not_specialize for p in sizes)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_sparse_dual(dtype, architecture):
    constants = {"BLOCK": low_rank.BLOCK, "COMPLEX": dtype.is_complex}
    compile_kernel(low_rank.sparse_dual_kernel, dtype, constants, {"num_warps": 4}, architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("n", [pytest.param(4, marks=LATER), 18, pytest.param(32, marks=LATER)])
def test_nonnegative_least_squares(n, architecture):
    rows, options = nonnegative.blocks(n)
    constants = {"EPS": nonnegative.EPS, "ROWS": rows}
    kernel = nonnegative.pivoting_kernel
    compile_kernel(kernel, torch.float64, constants, options, architecture)
