"""The options of the package's own recipe: what each of them does, and that a run with all of them resumes."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import math

import lightning as L
import pytest
import torch

from unfoldkit import rpcanet
from unfoldkit.datasets.variation import FACTOR, varied
from unfoldkit.rpcanet import Decomposition, decomposition_loss, soft_iou_loss, train
from unfoldkit.rpcanet.networks.unfolding import StageOutput
from unfoldkit.rpcanet.training.run import open_data
from unfoldkit.tools.train import configuration_from, parser

from .test_train import logged, resumed_equals_uninterrupted

TINY = [
    *("--network.name=rpcanet", "--network.stages=2", "--network.channels=4", "--machine.accelerator=cpu"),
    *("--data.size=32", "--data.train_count=10", "--data.batch_size=4", "--data.workers=0"),
    *("--recipe.epochs=3", "--recipe.learning_rate=0.01"),
]
OWN = [*TINY, "--config=tools/configs/own.yaml", "--recipe.validate_every=1"]


def configured(*options):
    return configuration_from(parser().parse_args([*options]))


@pytest.mark.slow
def test_a_run_with_every_option_resumes_to_the_same_weights(tmp_path, monkeypatch):
    resumed_equals_uninterrupted(tmp_path, monkeypatch, configured(*OWN), epoch=2)


class Weights(L.Callback):
    """The weights after every step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, task, *_):
        self.steps.append([tensor.clone() for tensor in task.net.state_dict().values()])


def test_the_average_of_the_weights_is_what_a_run_leaves_and_the_rate_half_a_cosine(tmp_path):
    weights = Weights()
    options = ("--recipe.average=0.5", "--recipe.decay=cosine", "--data.validation_count=2")
    configuration = configured(*TINY, *options)
    net = train(configuration, tmp_path, callbacks=[weights])
    average, *others = weights.steps
    for step in others:
        average = [a + (w - a) / (0.5 * len(weights.steps)) for a, w in zip(average, step, strict=True)]
    loaded = rpcanet.load_weights(tmp_path / "last.safetensors").state_dict()
    for (name, found), expected in zip(loaded.items(), average, strict=True):
        if found.is_floating_point():
            torch.testing.assert_close(found, expected)
            torch.testing.assert_close(net.state_dict()[name], expected)
    rates = logged(tmp_path)[0]["train/learning_rate"]
    steps = [3 * epoch + 2 for epoch in range(3)]  # the last of an epoch's three is logged
    assert rates == pytest.approx([0.005 * (1 + math.cos(math.pi * step / 9)) for step in steps])


def test_held_out_pictures_are_a_share_of_the_training_pictures_and_not_trained_on():
    configuration = configured(*TINY, "--data.held_out=0.3")
    data = open_data(configuration.data, configuration.recipe)
    train_names, held = ({sample.name for sample in part} for part in (data.train, data.validation))
    assert (len(train_names), len(held)) == (7, 3)
    assert not train_names & held
    assert all(name.startswith("train") for name in held)


@pytest.mark.parametrize("share", [0.01, 1.0, -0.5])
def test_a_share_that_leaves_no_picture_is_refused(share):
    configuration = configured(*TINY, f"--data.held_out={share}")
    with pytest.raises(ValueError, match=r"--data.held_out must leave pictures .* of 10; got"):
        open_data(configuration.data, configuration.recipe)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("recipe.average=2", "--recipe.average must be from 0 to 1, got 2"),
        ("recipe.supervision=-1", "--recipe.supervision must be at least 0, got -1"),
        ("machine.checkpoint_every=0", "--machine.checkpoint_every must be at least 1, got 0"),
    ],
)
def test_other_numbers_are_refused_by_their_option(tmp_path, option, said):
    with pytest.raises(ValueError, match=said):
        train(configured(*TINY, f"--{option}"), tmp_path)


def test_supervision_adds_the_mean_loss_of_the_earlier_stages():
    image, mask = torch.rand(2, 1, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    stages = tuple(StageOutput(image, torch.randn_like(image), image) for _ in range(3))
    decomposition = Decomposition(*stages[-1], stages)
    alone, supervised = (
        decomposition_loss(decomposition, image, mask, supervision=weight).total for weight in (0.0, 0.5)
    )
    earlier = (soft_iou_loss(stages[0].object, mask) + soft_iou_loss(stages[1].object, mask)) / 2
    torch.testing.assert_close(supervised, alone + 0.5 * earlier)


def test_varied_pictures_keep_their_masks_under_their_objects():
    image = torch.zeros(16, 1, 64, 64)
    image[:, :, 24:40, 20:36] = 1
    seeded = [torch.Generator().manual_seed(seed) for seed in (3, 3, 4)]
    (picture, mask), (again, _), (other, _) = (varied(image, image.clone(), g) for g in seeded)
    assert torch.equal(picture, again)
    assert not torch.equal(picture, other)
    for one, its_mask in zip(picture, mask, strict=True):
        inside, outside = one[its_mask > 1 - 1e-6], one[its_mask < 1e-6]
        assert inside.std() < 1e-5
        assert outside.std() < 1e-5
        assert 1 / FACTOR <= inside.mean() - outside.mean() <= FACTOR
    areas = mask.sum((1, 2, 3)) / image.sum((1, 2, 3))
    assert 0.4 < areas.min() < 0.8
    assert 1.2 < areas.max() < 2.3
