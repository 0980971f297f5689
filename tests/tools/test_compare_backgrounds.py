"""Backgrounds compared by their rank."""

import pytest

from unfoldkit import rpcanet
from unfoldkit.rpcanet.inside.backgrounds import measure_backgrounds
from unfoldkit.tools import compare_backgrounds


def test_a_low_rank_network_has_backgrounds_of_lower_rank_than_the_picture(tmp_path):
    net = rpcanet.build("lowrank", stages=2, channels=4)
    training = {"data": {"size": 48}, "recipe": {"seed": 1}}
    rpcanet.save_weights(net, tmp_path / "net.safetensors", training)
    row = measure_backgrounds(tmp_path / "net.safetensors", "synthetic", None, count=2)
    assert row.panel.shape == (3, 2 * 192, 3 * 192)
    assert len(row.ranks) == 4
    assert row.ranks[1] < row.ranks[0]
    assert row.parameters == sum(p.numel() for p in net.parameters())
    assert 0 <= row.iou <= 1
    assert row.residuals[1] < 1e-6 < row.residuals[0]


def test_a_number_of_scenes_is_refused_of_another_data_set(tmp_path, run):
    status, _, err = run(compare_backgrounds, tmp_path / "net.safetensors", "--dataset=sirst", "--count=5")
    assert status == 2
    assert "--count is not read beside --dataset sirst: leave it out, got 5" in err


def test_other_weights_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        measure_backgrounds(tmp_path / "nothing.safetensors", "synthetic", None, count=2)
