"""The low-rank background step is the proximal operator that it claims to be, and trains inside its network."""

import pytest
import torch

from unfoldkit import rpcanet
from unfoldkit.rpcanet import LowRankRPCANet
from unfoldkit.rpcanet.modules import PatchSVT


def thresholded(patch, tau):
    """By the full decomposition."""
    U, S, Vh = torch.linalg.svd(patch)
    return U @ torch.diag((S - tau * patch.norm()).clamp(min=0)) @ Vh


def test_one_patch_is_a_singular_value_threshold():
    x = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(
        PatchSVT(tau=0.1).double()(x)[0, 0], thresholded(x[0, 0], 0.1), rtol=1e-7, atol=1e-7
    )


def test_overlapping_patches_are_averaged():
    """Two patches of 4 columns that share two."""
    x = torch.rand(1, 1, 4, 6, dtype=torch.float64)
    left, right = thresholded(x[0, 0, :, :4], 0.2), thresholded(x[0, 0, :, 2:], 0.2)
    expected = torch.cat((left[:, :2], (left[:, 2:] + right[:, :2]) / 2, right[:, 2:]), 1)
    found = PatchSVT(patch=4, step=2, tau=0.2).double()(x)[0, 0]
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


def test_a_smooth_background_stays_and_a_small_object_goes():
    rows, columns = torch.linspace(0.4, 1, 48), torch.linspace(1, 0.5, 48)
    background = rows[:, None] * columns
    scene = background.clone()
    scene[20:22, 30:33] += 0.5
    found = PatchSVT(tau=0.1)(scene[None, None])[0, 0]
    assert (found - scene)[20:22, 30:33].mean() < -0.25  # more than half of it
    assert (found / background)[:8, :8].sub(0.9).abs().max() < 1e-3


def test_the_threshold_learns():
    svt, x = PatchSVT(), torch.rand(2, 1, 20, 20, requires_grad=True)
    svt(x).square().sum().backward()
    assert svt.logit.grad < 0
    assert x.grad.isfinite().all()
    assert x.grad.abs().max() > 0


def test_gradients_are_those_of_differences():
    svt = PatchSVT(patch=4, step=3, tau=0.1).double()
    x = torch.rand(1, 1, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(svt, x)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (17, 40)])
def test_any_height_and_width(shape):
    for part in LowRankRPCANet(stages=2, channels=4).eval()(torch.rand(2, 1, *shape))[:3]:
        assert part.shape == (2, 1, *shape)
        assert part.isfinite().all()


def test_stages_follow_the_alternation():
    net = LowRankRPCANet(stages=2, channels=4).eval()
    restoration = torch.rand(1, 1, 20, 24)
    object_ = torch.zeros_like(restoration)
    decomposition = net(restoration, return_stages=True)
    for stage, output in zip(net.stages, decomposition.stages, strict=True):
        background = stage.svt(stage.mix(torch.cat((restoration, object_), 1)))
        object_ = stage.oem(object_ + restoration - background)
        restoration = stage.irm(background + object_)
        torch.testing.assert_close(output, (background, object_, restoration))


def test_untrained_the_background_is_that_of_picture_minus_object():
    stage = LowRankRPCANet(stages=1, channels=4).eval().stages[0]
    picture, object_ = torch.rand(2, 1, 1, 20, 20)
    output, _ = stage(picture, object_, None)
    torch.testing.assert_close(output.background, stage.svt(picture - object_))


def test_it_is_built_stored_and_optimized_by_name(tmp_path):
    net = rpcanet.build("lowrank", stages=2, channels=4).eval()
    rpcanet.save_weights(net, tmp_path / "net.safetensors")
    loaded, image = rpcanet.load_weights(tmp_path / "net.safetensors"), torch.rand(1, 1, 33, 40)
    assert isinstance(loaded, LowRankRPCANet)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image).object, net(image).object)
        torch.testing.assert_close(
            rpcanet.optimize(net)(image).object, net(image).object, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("options", [{"patch": 4, "step": 5}, {"step": 0}, {"tau": 1.0}])
def test_wrong_patches_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        PatchSVT(**options)
