"""The loss against its definition."""

import pytest
import torch

from unfoldkit.rpcanet import Decomposition, decomposition_loss, soft_iou_loss


def test_soft_iou_is_its_definition_picture_by_picture():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 5, 6, generator=generator)
    mask = (torch.rand(3, 1, 5, 6, generator=generator) > 0.5).float()
    expected = 0.0
    for p, m in zip(logits.sigmoid(), mask, strict=True):
        intersection = (p * m).sum()
        expected += (intersection + 1) / (p.sum() + m.sum() - intersection + 1) / 3
    torch.testing.assert_close(soft_iou_loss(logits, mask), 1 - expected)


@pytest.mark.parametrize("mask", [torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)])
def test_perfect_answers_cost_nothing_also_on_empty_masks(mask):
    assert soft_iou_loss(100 * (2 * mask - 1), mask).item() == pytest.approx(0, abs=1e-6)


def test_parts_add_up():
    image, mask = torch.rand(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    loss = decomposition_loss(Decomposition(image, image, image + 2), image, mask, fidelity_weight=0.5)
    assert loss.fidelity.item() == pytest.approx(4)
    assert loss.total.item() == pytest.approx(loss.soft_iou.item() + 0.5 * 4)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"logits \(1, 1, 4, 4\) and mask \(1, 4, 4\) differ"):
        soft_iou_loss(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))
