"""Running a network on pictures of any size."""

import pytest
import torch

from unfoldkit.rpcanet import RPCANet, decompose
from unfoldkit.rpcanet.inference.evaluation import answer
from unfoldkit.rpcanet.inside.panels import panel


def test_a_picture_at_its_own_size_is_the_network_itself():
    net = RPCANet(stages=2, channels=4, mean=100, std=50).eval()
    levels = torch.randint(0, 256, (20, 30), dtype=torch.uint8)
    expected = net(((levels.float() - 100) / 50)[None, None])
    found = decompose(net, levels)
    torch.testing.assert_close(found.object, expected.object)
    torch.testing.assert_close(found.background, expected.background * 50 + 100)


def test_resizing_comes_back_to_the_pictures_size():
    net = RPCANet(stages=1, channels=4).eval()
    assert decompose(net, torch.zeros(20, 30), size=16).object.shape == (1, 1, 20, 30)


def test_a_padded_picture_is_answered_as_evaluation_answers_it():
    net = RPCANet(stages=1, channels=4, mean=100, std=50).eval()
    levels = torch.randint(0, 256, (40, 50))
    expected = answer(net, ((levels - 100) / 50)[None, None], padding=32)
    found = decompose(net, levels, padding=32)
    torch.testing.assert_close(found.object, expected.object)
    assert not torch.equal(found.object, decompose(net, levels).object)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (torch.zeros(3, 4, 4), r"levels must be \(height, width\), got shape \(3, 4, 4\)"),
        (torch.full((8, 8), torch.nan), "levels must be finite"),
    ],
)
def test_levels_must_be_a_picture(levels, message):
    with pytest.raises(ValueError, match=message):
        decompose(RPCANet(stages=1).eval(), levels)


def test_a_network_in_training_mode_is_refused_and_left_as_it_was():
    net = RPCANet(stages=1)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    with pytest.raises(ValueError, match="net must be in evaluation mode"):
        decompose(net, torch.zeros(8, 8))
    for key, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[key]), key


def test_panel_of_a_flat_picture_is_finite():
    image = torch.full((1, 1, 16, 16), 0.5)
    with torch.no_grad():
        shown = panel(image, RPCANet(stages=1, channels=4)(image), height=16)
    assert shown.shape == (3, 16, 64)
    assert shown.min() >= 0
    assert shown.max() <= 1
