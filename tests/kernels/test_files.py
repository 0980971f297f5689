"""A written file is there whole or not at all, whatever goes wrong."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import errno
import os
import resource
from pathlib import Path

import pytest

from unfoldkit.common.files import whole_file, write_whole


@pytest.mark.parametrize("name", ["plain", "with space", "with\nnewline", "größe-数据"])
@pytest.mark.parametrize("content", ["text é", b"\x00bytes", b""])
def test_writes_and_replaces(tmp_path, name, content):
    path = tmp_path / name
    for _ in range(2):
        write_whole(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
        assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path):
    """The system's limit on the size of a file stands for the disk's."""
    path = tmp_path / "weights"
    write_whole(path, b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot be written .*weights"):
            write_whole(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("place", "call"), [(os, "fsync"), (Path, "replace")])
def test_a_failure_on_the_way_leaves_the_file_as_it_was(tmp_path, monkeypatch, place, call):
    path = tmp_path / "weights"
    write_whole(path, b"before")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(place, call, fail)
    with pytest.raises(OSError, match=r"No space left on device.*weights") as raised:
        write_whole(path, b"after")
    assert raised.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file/weights"):
        write_whole(tmp_path / "file" / "weights", b"")
    with pytest.raises(FileNotFoundError, match="none/weights"):
        write_whole(tmp_path / "none" / "weights", b"")


@pytest.mark.skipif(os.geteuid() == 0, reason="no folder's permissions hold for root")
def test_a_folder_without_permission_to_write_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="weights"):
        write_whole(tmp_path / "weights", b"")


def test_a_block_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "weights"
    write_whole(path, b"before")

    def fail_half_way():
        with whole_file(path) as draft:
            draft.write_bytes(b"half")
            raise KeyError("of the block")

    with pytest.raises(KeyError, match="of the block"):
        fail_half_way()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="source"), whole_file(tmp_path / "weights"):
        (tmp_path / "source").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_the_draft_of_a_killed_process_is_overwritten(tmp_path):
    (tmp_path / ".weights.part").write_bytes(b"half of what was")
    write_whole(tmp_path / "weights", b"all")
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
