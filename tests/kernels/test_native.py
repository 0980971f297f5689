"""C sources compiled on first use: kept, shared between processes, and done without where they cannot be."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unfoldkit.kernels.native import compiler

ADD = "int add(int a, int b) { return a + b + EXTRA; }\n"
needs_compiler = pytest.mark.skipif(compiler._compiler() is None, reason="needs a C compiler")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A C file, and a cache folder of its own."""
    monkeypatch.setenv("UNFOLDKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(compiler, "_warned", set())
    compiler.load.cache_clear()
    path = tmp_path / "_add.c"
    path.write_text(ADD)
    yield path
    compiler.load.cache_clear()


def counted(monkeypatch):
    """Every compiler run from here on."""
    runs, run = [], subprocess.run
    monkeypatch.setattr(compiler.subprocess, "run", lambda *a, **k: (runs.append(a[0]), run(*a, **k))[1])
    return runs


@needs_compiler
def test_a_library_is_compiled_once_for_each_definition(source, monkeypatch):
    runs = counted(monkeypatch)
    assert compiler.load(source, EXTRA="0").add(1, 2) == 3
    compiler.load.cache_clear()  # as in another process
    assert compiler.load(source, EXTRA="0").add(1, 2) == 3
    assert len(runs) == 1
    assert compiler.load(source, EXTRA="5").add(1, 2) == 8
    assert len(runs) == 2
    assert len(list(compiler.cache_folder().iterdir())) == 2


@needs_compiler
def test_a_changed_source_is_compiled_anew(source):
    assert compiler.load(source, EXTRA="0").add(1, 2) == 3
    source.write_text(ADD.replace("a + b", "a - b"))
    compiler.load.cache_clear()
    assert compiler.load(source, EXTRA="0").add(1, 2) == -1


def test_without_a_compiler_there_is_no_library(source, monkeypatch, caplog):
    monkeypatch.setattr(compiler.shutil, "which", lambda name: None)
    with caplog.at_level(logging.INFO):
        assert compiler.load(source, EXTRA="0") is None
        assert compiler.load(source, EXTRA="1") is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no C compiler (CC, cc, gcc or clang): _add goes through PyTorch" in caplog.text
    assert not compiler.cache_folder().exists()


COMPILERS = {
    "too old": ("cc1: error: bad value 'native' for '-march=' switch", 1),
    "without OpenMP": ("clang: error: unsupported option '-fopenmp'", 1),
    "without its headers": ("winograd.c:9:10: fatal error: omp.h: No such file or directory", 1),
    "broken": ("", 139),
    "writes nothing": ("", 0),
}


def put_on_path(folder, said, status):
    """A compiler of this behaviour, alone on the path."""
    fake = folder / "bin" / "cc"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\necho 'In file included from x' >&2\necho \"{said}\" >&2\nexit {status}\n")
    fake.chmod(0o755)
    return fake


@pytest.mark.parametrize("kind", COMPILERS)
def test_an_unfit_compiler_is_one_line(kind, source, tmp_path, monkeypatch, caplog):
    said, status = COMPILERS[kind]
    fake = put_on_path(tmp_path, said, status)
    monkeypatch.setenv("PATH", str(fake.parent))
    monkeypatch.delenv("CC", raising=False)
    assert compiler.load(source, EXTRA="0") is None
    assert compiler.load(source, EXTRA="1") is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    line = record.getMessage()
    assert line.startswith(f"the C compiler {fake} fails: _add goes through PyTorch, more slowly (")
    assert said in line
    assert "\n" not in line
    assert list(compiler.cache_folder().iterdir()) == []


def test_convolutions_without_a_fit_compiler_end_in_pytorch(tmp_path):
    fake = put_on_path(tmp_path, *COMPILERS["without OpenMP"])
    code = (
        "import torch; from unfoldkit.kernels import same_conv2d;"
        "from unfoldkit.kernels.native import conv;"
        "x = torch.ones(1, 16, 40, 40).contiguous(memory_format=torch.channels_last);"
        "print(conv.vector_length(), same_conv2d(x, torch.ones(16, 16, 3, 3))[0, 0, 5, 5].item())"
    )
    environment = {
        "PATH": str(fake.parent),
        "UNFOLDKIT_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.stdout.split() == ["0", "144.0"]
    (line,) = run.stderr.splitlines()
    assert "unsupported option '-fopenmp'" in line


@needs_compiler
def test_a_damaged_library_is_compiled_anew(source):
    assert compiler.load(source, EXTRA="0").add(1, 2) == 3
    (library,) = compiler.cache_folder().iterdir()
    library.unlink()  # a library in use must not be written to
    library.write_bytes(b"half of it")
    compiler.load.cache_clear()
    assert compiler.load(source, EXTRA="0").add(1, 2) == 3


@needs_compiler
def test_a_broken_source_is_a_warning(source, caplog):
    source.write_text("int add(")
    assert compiler.load(source) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "add goes through PyTorch" in record.getMessage()
    assert "error" in record.getMessage()
    assert list(compiler.cache_folder().iterdir()) == []


@needs_compiler
def test_a_cache_folder_that_cannot_be_written(source, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("UNFOLDKIT_CACHE", str(tmp_path / "file" / "cache"))
    assert compiler.load(source, EXTRA="0").add(1, 2) == 3


def test_the_cache_folder_follows_the_environment(monkeypatch):
    monkeypatch.setenv("UNFOLDKIT_CACHE", "/chosen")
    assert compiler.cache_folder() == Path("/chosen")
    monkeypatch.delenv("UNFOLDKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/caches")
    assert compiler.cache_folder() == Path("/home/caches/unfoldkit")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert compiler.cache_folder() == Path.home() / ".cache" / "unfoldkit"


@needs_compiler
def test_two_processes_at_once(source):
    code = (
        "from pathlib import Path; from unfoldkit.kernels.native import compiler;"
        f"print(compiler.load(Path({str(source)!r}), EXTRA='1').add(1, 2))"
    )
    search = os.pathsep.join(sys.path)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": search}
        )
        for _ in range(2)
    ]
    assert [worker.communicate()[0] for worker in workers] == [b"4\n"] * 2
    assert len(list(compiler.cache_folder().iterdir())) == 1
