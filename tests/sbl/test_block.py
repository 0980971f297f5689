"""The EM loop for a GPU gives what the one in C gives; here a CPU's threads stand for those of a block."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import ctypes
import dataclasses
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from unfoldkit.kernels.native import compiler
from unfoldkit.sbl.em import compiled
from unfoldkit.sbl.em.block import solve as block

from .test_compiled import METHODS, SETTINGS, SIZES, TOLERANCE, assert_equal

HOST = Path(__file__).with_name("em_on_host.cpp")
pytestmark = pytest.mark.skipif(
    compiler._compiler() is None or shutil.which("g++") is None, reason="needs C and C++ compilers"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A function that gives the source for a GPU as C++, for so many factors of real or complex numbers."""
    folder = tmp_path_factory.mktemp("block")

    @lru_cache
    def build(factors, complex_numbers):
        built = folder / f"{factors}-{complex_numbers}.so"
        options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-fopenmp", "-Wno-unknown-pragmas"]
        options += [
            f"-DFACTORS={factors}",
            f"-DCOMPLEX={complex_numbers}",
            f'-DEM_CU="{block.SOURCE.resolve()}"',
        ]
        subprocess.run(["g++", *options, HOST, "-o", built], check=True)
        return ctypes.CDLL(str(built))

    return build


@pytest.fixture
def on_host(library, monkeypatch):
    """A function that lets compiled solves go through the source for a GPU, by so many threads."""

    def patch(threads):
        class Library:
            def em_solve(self, reference):
                call = reference._obj
                sizes = tuple(call.rows[: call.factors]), tuple(call.columns[: call.factors])
                places, _ = block.layout(*sizes, bool(call.complex_numbers))
                solve = library(call.factors, call.complex_numbers).em_solve_on_host
                solve(reference, ctypes.byref(places), threads)
                return 0

        monkeypatch.setattr(compiled.compiler, "load", lambda source: Library())

    return patch


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("known_noise", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("name", METHODS)
def test_it_is_the_estimate_of_the_loop_in_c(draw, on_host, name, dtype, sizes, known_noise, settings):
    factors, _, y, s2 = draw(dtype=dtype, batch=(3,), **SIZES[sizes])
    method = dataclasses.replace(METHODS[name], **SETTINGS[settings])
    problem = (factors, y, s2 if known_noise else None)
    expected = method(*problem, history=True)
    on_host(1)
    assert_equal(method(*problem, history=True), expected, TOLERANCE[name])


@pytest.mark.parametrize("name", METHODS)
def test_threads_share_the_work(draw, on_host, name):
    factors, _, y, s2 = draw(dtype=torch.complex128, rows=(6, 3, 7), columns=(8, 8, 8))
    expected = METHODS[name](factors, y, s2)
    on_host(3)
    assert_equal(METHODS[name](factors, y, s2), expected, TOLERANCE[name])
