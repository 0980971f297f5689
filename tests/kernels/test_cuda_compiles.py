"""CUDA C is compiled without a GPU where NVRTC is there, and kept."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from pathlib import Path

import pytest

from unfoldkit.common import nvrtc as compile
from unfoldkit.sbl.em.block import solve as block


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("UNFOLDKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def nvrtc():
    try:
        return compile.nvrtc()
    except OSError:
        pytest.skip("needs NVRTC")


@pytest.fixture
def source(tmp_path):
    """A file whose header lies beside it."""
    (tmp_path / "value.cuh").write_text("static float value(float x) { return x + SHIFT; }\n")
    path = tmp_path / "shift.cu"
    path.write_text('#include "value.cuh"\nextern "C" __global__ void shift(float *x) { *x = value(*x); }\n')
    return path


def test_what_is_included_counts(source):
    names = [path.name for path in compile._with_headers(source)]
    assert names == ["shift.cu", "value.cuh"]
    loop = {path.name for path in compile._with_headers(block.SOURCES["em_solve"].resolve())}
    assert {"em.cu", "block.cuh", "jacobi.cuh", "e_step.cuh", "m_steps.cuh", "call.h", "fit.h"} <= loop


def test_a_kernel_is_compiled_once(nvrtc, source, cache, monkeypatch):
    first = compile.cubin(source, "sm_90", SHIFT=1)
    assert first[:4] == b"\x7fELF"
    monkeypatch.setattr(compile, "_compiled", lambda *_: pytest.fail("compiled again"))
    assert compile.cubin(source, "sm_90", SHIFT=1) == first
    assert [path.read_bytes() for path in cache.iterdir()] == [first]


def test_a_changed_header_or_definition_is_compiled_anew(nvrtc, source):
    first = compile.cubin(source, "sm_90", SHIFT=1)
    assert compile.cubin(source, "sm_90", SHIFT=2) != first
    (source.parent / "value.cuh").write_text("static float value(float x) { return x * SHIFT; }\n")
    assert compile.cubin(source, "sm_90", SHIFT=1) != first


def test_what_does_not_compile_is_said(nvrtc, source):
    with pytest.raises(compile.CompilationError, match="SHIFT"):
        compile.cubin(source, "sm_90")


def test_without_nvrtc_there_is_none(source, monkeypatch):
    def missing():
        raise OSError("no NVRTC")

    monkeypatch.setattr(compile, "nvrtc", missing)
    with pytest.raises(OSError, match="NVRTC"):
        compile.cubin(source, "sm_90", SHIFT=1)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize("step", range(5))
@pytest.mark.parametrize("complex_numbers", [0, 1])
def test_the_em_loop_compiles(nvrtc, architecture, step, complex_numbers):
    definitions = block.definitions(2, bool(complex_numbers), step)
    assert compile.cubin(Path(block.SOURCES["em_solve"]), architecture, **definitions)[:4] == b"\x7fELF"
