"""A rehearsal compiles what a run needs and leaves nothing else behind."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import torch

from unfoldkit import rpcanet
from unfoldkit.datasets import SegmentationDataset, SyntheticScenes
from unfoldkit.datasets.datamodule import SegmentationData
from unfoldkit.rpcanet.inference.fast import InferenceForm
from unfoldkit.rpcanet.training import run
from unfoldkit.rpcanet.training.graphed import evaluated
from unfoldkit.rpcanet.training.rehearsal import rehearse


def test_it_changes_no_random_number_and_steps_with_every_shape():
    torch.manual_seed(0)
    net, seen = rpcanet.RPCANetPlusPlus(stages=2, channels=4), []
    state = torch.get_rng_state()
    net.register_forward_pre_hook(lambda _, given: seen.append((net.training, *given[0].shape)))
    rehearse(net, [(3, 1, 16, 16), (2, 1, 16, 16)], torch.device("cpu"), mixed=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert seen == [(training, count, 1, 16, 16) for count in (3, 2) for training in (True, False)]
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_shapes_are_those_of_whole_and_last_batches():
    def data(train, validation, size=32):
        scenes = [SyntheticScenes("train", count, 32) for count in (train, validation)]
        return SegmentationData(*(SegmentationDataset(scene, size) for scene in scenes), batch_size=4)

    assert run.shapes_of(data(11, 6)) == [(count, 1, 32, 32) for count in (4, 3, 2)]
    assert run.shapes_of(data(9, 4)) == [(4, 1, 32, 32)]  # a picture alone is not trained on
    assert run.shapes_of(data(8, 4, None)) == []


def test_validation_is_answered_by_the_network_or_its_inference_form():
    torch.manual_seed(0)
    net, image = rpcanet.RPCANetPlusPlus(stages=2, channels=4), torch.rand(2, 1, 16, 16)
    before = net.state_dict(keep_vars=True)
    with torch.inference_mode():  # as Lightning validates
        fast = evaluated(net, mixed=True)
        assert isinstance(fast, InferenceForm)
        exact = evaluated(net, mixed=False)
        assert exact is net
        torch.testing.assert_close(fast(image).object, exact(image).object, rtol=0.05, atol=0.02)
    assert all(value is before[key] for key, value in net.state_dict(keep_vars=True).items())
