"""Curves of a run are those that it logged."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import sys

import pytest
from torch.utils.tensorboard import SummaryWriter

from unfoldkit.rpcanet.training.curves import read_curves
from unfoldkit.tools import training_curves


@pytest.fixture
def run(tmp_path):
    """Two epochs of three logged steps, as tools/train.py logs them."""
    with SummaryWriter(str(tmp_path / "run" / "tensorboard")) as writer:
        for step in range(6):
            writer.add_scalar("train/loss", [3, 2, 1, 0.5, 0.4, 0.3][step], step)
            writer.add_scalar("epoch", step // 3, step)
        for epoch, iou in enumerate((0.25, 0.5)):
            writer.add_scalar("val/iou", iou, 3 * epoch + 2)
    return tmp_path / "run"


def test_losses_are_means_over_epochs(run):
    curves = read_curves(run, "iou")
    assert curves.loss == pytest.approx([2, 0.4])
    assert curves.metric == [0.25, 0.5]


def test_a_picture_is_drawn(run, tmp_path, monkeypatch):
    out = tmp_path / "curves.png"
    published = ["--published", "RPCANet++ S6=0.8"]
    monkeypatch.setattr(sys, "argv", ["training_curves.py", str(run), "--out", str(out), *published])
    training_curves.main()
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "pd"], "expected val/pd"),
        (["--published", "RPCANet"], "--published must be NAME=NUMBER"),
    ],
)
def test_what_is_missing_is_named(run, options, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["training_curves.py", str(run), *options])
    with pytest.raises(SystemExit):
        training_curves.main()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["nope", "other"])
def test_a_folder_without_a_run_is_named(run, folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(sys, "argv", ["training_curves.py", str(run), str(tmp_path / folder)])
    with pytest.raises(SystemExit) as ended:
        training_curves.main()
    assert ended.value.code == 2
    said = f"error: {tmp_path / folder}: expected the folder of a training run, with tensorboard/ in it\n"
    assert capsys.readouterr().err.endswith(said)
