"""Small calls of the CUDA C of decompositions and estimators, for compute-sanitizer to watch:
`python tests/helpers/sanitized.py PART`."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from unfoldkit.kernels.gpu import dense, leading_triplet, small_svd
from unfoldkit.kernels.gpu.compile import kernel
from unfoldkit.sbl import KSBL, AMKroSBL, PCKroSBL, SVDKroSBL, UnfoldedKroSBL
from unfoldkit.sbl.em.block import solve as block

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
RANDOM = torch.Generator().manual_seed(0)
ENDED = "came to its end"
SMALL_CHIP = 9000  # bytes, of which no matrix here fits
FAULTY = """
extern "C" __global__ void racing(float *values) {
    __shared__ float shared[64];
    shared[threadIdx.x] = threadIdx.x;
    values[threadIdx.x] = shared[63 - threadIdx.x];
}
extern "C" __global__ void outside(float *values) { values[threadIdx.x + (1 << 28)] = 0; }
"""


def draw(*shape: int, dtype: torch.dtype) -> Tensor:
    """Gaussian numbers on the GPU, the same in every run."""
    return torch.randn(shape, generator=RANDOM, dtype=dtype).cuda()


def small_matrices() -> None:
    """SVDs that lanes share, and the same in several rounds and parts."""
    for dtype in DTYPES:
        for size in ((1, 1), (3, 3), (8, 8), (16, 16), (32, 32), (20, 9), (9, 20), (30, 32)):
            dense.svd(draw(5, *size, dtype=dtype))
            dense.svd(draw(5, *size, dtype=dtype), vectors=False)
    with (
        patch.object(small_svd, "rotations", lambda n: 2 * n),
        patch.object(small_svd, "MOST_BYTES", 100_000),
    ):
        for dtype in DTYPES:
            dense.svd(draw(7, 32, 32, dtype=dtype))
            dense.svd(draw(7, 8, 6, dtype=dtype))


def matrices() -> None:
    """Decompositions by a block each, on chip and off it, and leading singular vectors."""
    for dtype in DTYPES:
        for n in (3, 16, 32, 40):
            square = draw(3, n, n, dtype=dtype)
            dense.eigh(square + square.mH)
        for size in ((40, 34), (9, 40)):
            dense.svd(draw(2, *size, dtype=dtype))
        for rows in (3, 12, 30):
            leading_triplet.leading_vector(draw(2, rows, 70, dtype=dtype))
    chip = torch.cuda.get_device_properties(0)

    class SmallChip:
        shared_memory_per_block_optin = SMALL_CHIP
        major, minor = chip.major, chip.minor

    with patch.object(torch.cuda, "get_device_properties", lambda device: SmallChip):
        dense._plan.cache_clear()
        for dtype in (torch.float32, torch.complex128):
            tall = draw(2, 48, 34, dtype=dtype)
            dense.svd(tall)
            dense.eigh(tall @ tall.mH)


def estimates(dtype: torch.dtype, rows: tuple[int, ...], columns: tuple[int, ...]) -> None:
    """Both forms of each M-step, told the noise and not, whose candidates are pruned on the way."""
    problem = posed(dtype, rows, columns)
    for published in (False, True):
        options: dict[str, Any] = {"as_published": published, "max_iterations": 8, "pruning": (0.4, 0.4, 0.4)}
        methods = (
            SVDKroSBL(**options),
            AMKroSBL(**options),
            KSBL(**options),
            PCKroSBL(0.8, coupled=(0, 2), **options),
        )
        for method in methods:
            method(*problem, torch.full((2,), 0.3, dtype=torch.float64, device="cuda"), history=True)
            method(*problem)
    SVDKroSBL(max_iterations=3, as_published=True, pruning=0.0, floor=1e-4)(*problem)


def posed(dtype: torch.dtype, rows: tuple[int, ...], columns: tuple[int, ...]) -> tuple[list[Tensor], Tensor]:
    """Factors and observations of two problems."""
    factors = [draw(2, m, n, dtype=dtype) for m, n in zip(rows, columns, strict=True)]
    return factors, draw(2, torch.Size(rows).numel(), dtype=dtype)


def real_estimates() -> None:
    """Of three small factors."""
    estimates(torch.float64, (8, 3, 4), (5, 4, 6))


def complex_estimates() -> None:
    """Of the paper's link."""
    estimates(torch.complex128, (6, 3, 16), (18, 18, 18))


def unfolded_estimates() -> None:
    """Two iterations of the network."""
    noise_variance = torch.full((2,), 0.3, dtype=torch.float64, device="cuda")
    networks = (
        UnfoldedKroSBL(iterations=2, factors=3, m_step="svd"),
        UnfoldedKroSBL(iterations=2, factors=3, m_step="am", sweeps=2, neighbours=1),
    )
    for network in networks:
        network.requires_grad_(False)(*posed(torch.complex128, (6, 3, 7), (8, 8, 8)), noise_variance)


def faulty(name: str) -> None:
    """A kernel that compute-sanitizer is to complain about."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "faulty.cu")
        source.write_text(FAULTY)
        values = torch.zeros(64, device="cuda")
        run = kernel(source, name, values.device)
        assert run is not None
        run(1, 64, 0, values)
        torch.cuda.synchronize()


PARTS: dict[str, Callable[[], None]] = {
    part.__name__: part
    for part in (small_matrices, matrices, real_estimates, complex_estimates, unfolded_estimates)
}


def watched(part: str) -> None:
    """Run a part, whose estimates must have been launched as kernels, and say that it came to its end."""
    with patch.object(block, "_launch", wraps=block._launch) as launched:
        PARTS[part]()
    torch.cuda.synchronize()
    assert launched.called == part.endswith("estimates"), f"{part}: not by the kernels for a GPU"
    print(ENDED)


if __name__ == "__main__":
    watched(sys.argv[1]) if sys.argv[1] in PARTS else faulty(sys.argv[1])
