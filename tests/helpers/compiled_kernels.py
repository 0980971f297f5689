"""The CUDA C that the tests on a GPU launch, compiled side by side before any of them asks for it."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

from unfoldkit.common.nvrtc import cubin
from unfoldkit.kernels.gpu import dense, small_svd
from unfoldkit.sbl.em.block import solve as block
from unfoldkit.sbl.em.compiled import Kind

Job = tuple[Path, dict[str, str | int]]
STEPS = {
    "em_solve": tuple(Kind),
    "em_unfolded": (Kind.NESTED_SVD, Kind.ALTERNATING, Kind.ROOT_SVD),
    "em_posterior": (block.FULL_MOMENT,),
}


def jobs() -> Iterator[Job]:
    """Sources with their definitions, those that take longest first."""
    for complex_numbers in (True, False):
        for factors in (3, 2):
            for name, steps in STEPS.items():
                for step in steps:
                    yield block.SOURCES[name], block.definitions(factors, complex_numbers, step)
    for dtype in (torch.complex128, torch.complex64, torch.float64, torch.float32):
        for rows in (32, 16, 8):
            yield small_svd.SOURCE, small_svd.definitions(dtype, rows)
            for order in (rows, rows - 1):
                yield dense.FOLDER / "eigh.cu", dense.definitions("eigh", dtype, 1, rows, True, order)
        for name in ("svd", "eigh"):
            for warps, on_chip in ((3, True), (17, False)):
                yield dense.FOLDER / f"{name}.cu", dense.definitions(name, dtype, warps, 32, on_chip)


def build(architecture: str, job: Job) -> None:
    source, definitions = job
    cubin(source, architecture, **definitions)


def build_all(architecture: str) -> None:
    """Into the cache, by as many processes as there are cores."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(mp_context=context) as executor:
        list(executor.map(partial(build, architecture), jobs()))
