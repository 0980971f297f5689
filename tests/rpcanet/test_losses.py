"""The loss against its definition."""

import pytest
import torch

from unfoldkit.rpcanet import Decomposition, decomposition_loss, soft_iou_loss
from unfoldkit.rpcanet.training.losses import BALANCE, LOSSES, batch_iou_loss


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


@pytest.mark.parametrize("size", [256, 512, 1024])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", LOSSES)
def test_half_precision_sums_in_float32(kind, dtype, size):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, size, size, generator=generator)
    mask = (torch.rand(logits.shape, generator=generator) > 0.3).float()
    found, expected = LOSSES[kind](logits.to(dtype), mask.to(dtype)), LOSSES[kind](logits, mask)
    assert found.dtype == torch.float32
    assert abs(found - expected) < 1e-2


def test_parts_in_half_precision_do_not_overflow():
    image = torch.full((1, 1, 8, 8), 300, dtype=torch.float16)
    loss = decomposition_loss(Decomposition(image, image, 0 * image), image, torch.ones_like(image))
    assert loss.fidelity.item() == 300**2


def test_batch_iou_is_its_definition():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 5, 6, generator=generator)
    m = (torch.rand(3, 1, 5, 6, generator=generator) > 0.5).float()
    p = logits.sigmoid()
    iou = ((p * m).sum() + 1) / (p.sum() + m.sum() - (p * m).sum() + 1)
    entropy = -(m * p.log() + (1 - m) * (1 - p).log())
    focal = ((p - m).abs() ** 2 * entropy).sum() / (m.sum() + 1)
    torch.testing.assert_close(batch_iou_loss(logits, m), 1 - iou + BALANCE * focal)


@pytest.mark.parametrize("kind", LOSSES)
def test_a_perfect_batch_costs_nothing(kind):
    mask = torch.zeros(4, 1, 6, 6)
    mask[0, 0, 2:4, 2:4] = 1
    decomposition = Decomposition(mask, 200 * mask - 100, mask)
    assert decomposition_loss(decomposition, mask, mask, kind=kind).total.item() == pytest.approx(0, abs=1e-6)


def test_nothing_anywhere_is_nearly_best_for_soft_iou_and_not_for_batch_iou():
    """Four of five pictures are empty: what "nothing" costs, and the pull on the object's logits there."""
    mask = torch.zeros(5, 1, 32, 32)
    mask[0, 0, 2:4, 2:4] = 1
    costs, pulls = {}, {}
    for kind, loss in LOSSES.items():
        logits = torch.full(mask.shape, -12.0, requires_grad=True)
        costs[kind] = loss(logits, mask)
        (gradient,) = torch.autograd.grad(costs[kind], logits)
        pulls[kind] = -gradient[mask > 0].sum()
    assert costs["soft_iou"] < 0.2
    assert costs["batch_iou"] > 0.8
    assert pulls["batch_iou"] > 1e3 * pulls["soft_iou"] > 0


def test_everywhere_is_the_best_constant_for_soft_iou_without_a_way_back_and_not_for_batch_iou():
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 8:12] = 1
    constants = [torch.full(mask.shape, level, requires_grad=True) for level in (-20.0, 0.0, 4.0, 20.0)]
    costs = [soft_iou_loss(logits, mask).item() for logits in constants]
    assert costs == sorted(costs, reverse=True)
    pulls = {
        kind: torch.autograd.grad(loss(constants[-1], mask), constants[-1])[0]
        for kind, loss in LOSSES.items()
    }
    assert not pulls["soft_iou"].any()
    assert (pulls["batch_iou"][mask == 0] > 0).all()


def test_unknown_loss():
    plane = torch.zeros(1, 1, 4, 4)
    with pytest.raises(ValueError, match="kind must be one of soft_iou, batch_iou, got 'dice'"):
        decomposition_loss(Decomposition(plane, plane, plane), plane, plane, kind="dice")
