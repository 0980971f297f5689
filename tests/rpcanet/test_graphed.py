"""Training on a GPU: CUDA graphs of whole steps give what eager steps give, a resumed run what a whole one."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from copy import deepcopy

import pytest
import torch
from steps import stepper
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unfoldkit import rpcanet
from unfoldkit.kernels import fused
from unfoldkit.rpcanet import decomposition_loss, train
from unfoldkit.rpcanet.training.graphed import GraphedSteps, GraphedTask
from unfoldkit.tools.train import configuration_from, parser

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SCENES = [
    *("--network.stages=2", "--network.channels=16", "--machine.accelerator=gpu", "--machine.devices=1"),
    *("--data.size=64", "--data.train_count=14", "--data.validation_count=4", "--data.batch_size=4"),
    "--recipe.epochs=4",
]


class TooFarError(Exception):
    pass


def test_a_replayed_step_is_an_eager_step(monkeypatch):
    """Also with a batch of another size in between, and with a rate that changes."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    net = rpcanet.RPCANetPlusPlus(stages=2, channels=8).cuda().train()
    other = deepcopy(net)
    eager, optimizer = stepper(net)
    step, graphed_optimizer = stepper(other)
    graphed = GraphedSteps(step, graphed_optimizer)
    for number in range(9):
        image = torch.rand(2 if number % 3 == 2 else 4, 1, 40, 48, device="cuda")
        mask = (image > 0.95).float()
        for each in (optimizer, graphed_optimizer):
            each.param_groups[0]["lr"] = 1e-4 / (1 + number)
        expected, found = eager(image, mask), graphed(image, mask).clone()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        for one, two in zip(net.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(two.grad, one.grad, rtol=1e-2, atol=1e-4)
    assert len(graphed.replays) == 2


def training_losses(out):
    events = EventAccumulator(str(out / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {event.step: event.value for event in events.Scalars("train/loss")}


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_resumed_run_learns_as_an_uninterrupted_one(tmp_path, monkeypatch, precision):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    configuration = configuration_from(parser().parse_args([*SCENES, f"--machine.precision={precision}"]))
    train(configuration, tmp_path / "whole")

    def stop(task):
        if task.current_epoch == 2:
            raise TooFarError

    with monkeypatch.context() as patch:
        patch.setattr(GraphedTask, "on_train_epoch_start", stop)
        with pytest.raises(TooFarError):
            train(configuration, tmp_path / "parts")
    train(configuration, tmp_path / "parts", resume=True)
    whole, parts = training_losses(tmp_path / "whole"), training_losses(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert len(whole) == 4  # one of every 4 steps, of 16
    for step, loss in whole.items():
        assert parts[step] == pytest.approx(loss, rel=1e-3 if precision == "32-true" else 2e-2)


def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(tmp_path, monkeypatch):
    configuration = configuration_from(parser().parse_args([*SCENES, "--recipe.learning_rate=1e30"]))
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at step \d+, batch \d+ of epoch 0"):
        train(configuration, tmp_path)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def gradients(net, image, mask, mixed):
    with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        loss = decomposition_loss(net(image), image, mask).total
    loss.backward()
    return torch.cat([parameter.grad.double().flatten() for parameter in net.parameters()])


@pytest.mark.parametrize("size", [(64, 64), (50, 71), (200, 200)])
def test_fused_layers_are_as_near_to_double_precision_as_layers_one_by_one(size, monkeypatch):
    torch.manual_seed(0)
    net = rpcanet.RPCANetPlusPlus(stages=2, channels=32).cuda().train()
    net.to(memory_format=torch.channels_last)
    image = torch.rand(3, 1, *size, device="cuda")
    mask = (image > 0.97).float()
    exact = gradients(deepcopy(net).double(), image.double(), mask.double(), mixed=False)
    found = gradients(deepcopy(net), image, mask, mixed=True)
    monkeypatch.setattr(fused, "serves", lambda *_: False)
    layers = gradients(deepcopy(net), image, mask, mixed=True)
    error, obvious = (float((x - exact).norm() / exact.norm()) for x in (found, layers))
    assert error < 1.5 * obvious
    assert error < 0.15
