"""Whatever writes a file leaves the one that was there where the new one does not fit the disk."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import errno
import os
import resource

import pytest
import torch

from unfoldkit import rpcanet, sbl
from unfoldkit.common import files
from unfoldkit.common.checkpoints import Checkpoints
from unfoldkit.common.report import write_mat
from unfoldkit.rpcanet.inference.export import export

LARGE = torch.rand(20_000, generator=torch.Generator().manual_seed(0))


def network():
    torch.manual_seed(0)
    return rpcanet.RPCANet(stages=1, channels=4).eval()


def write_checkpoint(path):
    checkpoints = Checkpoints()
    checkpoints.save_checkpoint({"weights": LARGE}, path)
    checkpoints.teardown()


WRITERS = {
    "weights": lambda path: rpcanet.save_weights(network(), path),
    "estimator": lambda path: sbl.save_estimator(sbl.UnfoldedKroSBL(iterations=10), path),
    "checkpoint": write_checkpoint,
    "torch-export": lambda path: export(network(), path, "torch-export"),
    "onnx": lambda path: export(network(), path, "onnx"),
    "mat": lambda path: write_mat(path, {"weights": LARGE.numpy()}),
    "save_pretrained": lambda path: network().save_pretrained(path.parent),
}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_leaves_every_file_as_it_was(tmp_path, kind):
    """The system's limit on the size of a file stands for the disk's."""
    path = tmp_path / "model.safetensors"
    WRITERS[kind](path)
    before = contents(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before[path.name]) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot be written .*model.safetensors"):
            WRITERS[kind](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == before


def test_files_of_save_pretrained_replace_those_before_together(tmp_path):
    network().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("my own")
    before = contents(tmp_path)
    rpcanet.RPCANet(stages=2, channels=4).save_pretrained(tmp_path)
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] == before[name]] == ["README.md"]
    assert len(rpcanet.RPCANet.from_pretrained(tmp_path).stages) == 2


def test_save_pretrained_replaces_nothing_where_one_file_fails(tmp_path, monkeypatch):
    network().save_pretrained(tmp_path)
    before, flush = contents(tmp_path), files._flush

    def fail_on_the_configuration(path):
        if path == tmp_path / ".config.json.part":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flush(path)

    monkeypatch.setattr(files, "_flush", fail_on_the_configuration)
    with pytest.raises(OSError, match=r"cannot be written .*config.json"):
        rpcanet.RPCANet(stages=2, channels=4).save_pretrained(tmp_path)
    assert contents(tmp_path) == before
