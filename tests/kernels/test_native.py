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
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert not compiler.cache_folder().exists()


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
