"""CUDA graphs of steps, as far as that needs no GPU: steps that none can hold, the end of them all."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import gc
import weakref
from contextlib import contextmanager
from copy import deepcopy

import lightning as L
import pytest
import torch
from steps import stepper

from unfoldkit import rpcanet
from unfoldkit.rpcanet.training import graphed, run
from unfoldkit.rpcanet.training.configuration import Configuration, Data, Machine, Network, Recipe
from unfoldkit.rpcanet.training.graphed import GraphedSteps


@contextmanager
def refusing(*_, **__):
    raise RuntimeError("not allowed while recording")
    yield


def test_steps_that_cannot_be_recorded_stay_eager(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "graph", refusing)
    torch.manual_seed(0)
    net = rpcanet.RPCANetPlusPlus(stages=1, channels=4).train()
    eager, _ = stepper(deepcopy(net))
    graphed = GraphedSteps(*stepper(net))
    for size in (4, 4, 4, 2, 2):
        image = torch.rand(size, 1, 16, 16)
        mask = (image > 0.9).float()
        assert torch.equal(graphed(image, mask), eager(image, mask))
    [record] = caplog.records
    assert record.getMessage() == "steps are not replayed as CUDA graphs: not allowed while recording"


class Recorded:
    """In place of a graph, which only a GPU records."""


class Recording(L.Callback):
    """Has the steps hold a graph from the first on, and raises after it where told to."""

    def __init__(self, error):
        self.error = error

    def on_train_batch_end(self, trainer, task, *_):
        task.steps.replays[torch.Size()] = Recorded()
        self.graph = weakref.ref(task.steps.replays[torch.Size()])
        if self.error:
            raise self.error


@pytest.mark.parametrize("error", [None, OSError, KeyboardInterrupt])
def test_no_graph_outlives_a_run_however_it_ends(tmp_path, monkeypatch, error):
    """NCCL would wait for it at the end of the process, for ever."""
    monkeypatch.setattr(run, "graphed", lambda *_: True)
    monkeypatch.setattr(graphed, "GRAPHS", 0)
    data = Data(size=32, train_count=4, validation_count=2, batch_size=2, workers=0)
    recording = Recording(error)
    gc.disable()
    try:
        run.train(
            Configuration(Network("rpcanet", 1, 4), data, Recipe(epochs=1), Machine("cpu")),
            tmp_path / "run",
            callbacks=[recording],
        )
    except (OSError, SystemExit):
        assert error
    finally:
        gc.enable()
    assert recording.graph() is None
