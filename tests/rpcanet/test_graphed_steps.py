"""Steps that cannot be replayed as CUDA graphs, which needs no GPU; what is replayed is in test_graphed.py."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from contextlib import contextmanager
from copy import deepcopy

import torch
from steps import stepper

from unfoldkit import rpcanet
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
