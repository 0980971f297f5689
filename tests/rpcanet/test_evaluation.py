"""Running a network on pictures of any size."""

import pytest
import torch

from unfoldkit.rpcanet import RPCANet, decompose
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


def test_levels_must_be_a_picture():
    with pytest.raises(ValueError, match=r"levels must be \(height, width\), got shape \(3, 4, 4\)"):
        decompose(RPCANet(stages=1).eval(), torch.zeros(3, 4, 4))


def test_panel_of_a_flat_picture_is_finite():
    image = torch.full((1, 1, 16, 16), 0.5)
    with torch.no_grad():
        shown = panel(image, RPCANet(stages=1, channels=4)(image), height=16)
    assert shown.shape == (3, 16, 64)
    assert shown.min() >= 0
    assert shown.max() <= 1
