"""The form of a few kernels a stage: the same stages, whatever kernels compute them."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from copy import deepcopy

import pytest
import torch
from torch import nn

from unfoldkit import rpcanet
from unfoldkit.rpcanet.inference.fast import InferenceForm
from unfoldkit.rpcanet.inference.fast import _on_chip as all_on_chip
from unfoldkit.rpcanet.inference.on_chip import Run, StageOnChip, on_chip
from unfoldkit.rpcanet.inside.interpretation import look_inside
from unfoldkit.rpcanet.networks.weights import NETWORKS

gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def settled(name, channels=16, stages=2):
    torch.manual_seed(0)
    net = NETWORKS[name](stages=stages, channels=channels)
    with torch.no_grad():
        for _ in range(3):
            net(torch.rand(2, 1, 24, 24))
    return net.eval()


def in_kernels(net):
    stages = all_on_chip(net)
    return InferenceForm(stages, net.mean, net.std).eval().requires_grad_(False)


def relative(ours, exact):
    return ((ours.double() - exact.double()).norm() / exact.double().norm()).item()


@pytest.mark.parametrize("name", ["rpcanet", "rpcanet++"])
def test_stages_equal_those_of_the_network(name):
    net, image = settled(name), torch.rand(2, 1, 20, 18)
    with torch.no_grad():
        exact, found = look_inside(net, image), look_inside(in_kernels(net), image)
    for ours, theirs in zip((*found.stages, found.responses), (*exact.stages, exact.responses), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a.dtype == torch.float32
            assert relative(a, b) < 0.01
    for a, b in zip(found.memory_changes, exact.memory_changes, strict=True):
        assert relative(a, b) < 0.01


def test_networks_of_other_parts_have_no_such_form():
    assert on_chip(rpcanet.LRPCANet(stages=1).stages[0]) is None
    for channels in (4, 24):
        assert on_chip(rpcanet.RPCANet(stages=1, channels=channels).stages[0]) is None


@pytest.mark.parametrize(("name", "channels"), [("drpca_net", 8), ("rpcanet", 4)])
def test_networks_without_such_a_form_are_not_copied_to_find_out(name, channels, monkeypatch):
    net = rpcanet.build(name, stages=1, channels=channels)

    def refuse(*_):
        raise AssertionError("a stage is copied")

    monkeypatch.setattr(nn.Module, "__deepcopy__", refuse, raising=False)
    assert all_on_chip(net) is None


def test_weights_beyond_float16_have_no_such_form():
    """Nor has any stage of their network: what stages hand on differs."""
    net = settled("rpcanet++")
    assert len(all_on_chip(net)) == 2
    with torch.no_grad():
        net.stages[1].bam.projection.weight.fill_(3000.0)
    assert on_chip(net.stages[0]) is not None
    assert on_chip(net.stages[1]) is None
    assert all_on_chip(net) is None


@pytest.mark.parametrize("name", ["rpcanet", "rpcanet++"])
def test_features_beyond_the_largest_float16_are_in_range(name):
    net, image, largest = settled(name), 3e5 * torch.rand(1, 1, 20, 18), []
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda *seen: largest.append(seen[2].max()))
    with torch.no_grad():
        for ours, theirs in zip(in_kernels(net)(image)[:3], net(image)[:3], strict=True):
            assert relative(ours, theirs) < 0.02
    assert max(largest) > 2 * torch.finfo(torch.float16).max


@pytest.mark.parametrize(
    ("between", "expected"),
    [(0, [(0, 1), (0, 1)]), (1, [(1, 2)]), (3, [(1, 1), (2, 1)]), (6, [(2, 1), (2, 0), (2, 1)])],
)
def test_a_stack_is_cut_into_runs_of_two(between, expected):
    convs = [nn.Conv2d(1, 8, 3), *(nn.Conv2d(8, 8, 3) for _ in range(between)), nn.Conv2d(8, 1, 3)]
    assert [(chain.layers, chain.from_plane + chain.to_plane) for chain in Run(convs)] == expected


@pytest.mark.parametrize("case", [pytest.param(name, marks=gpu) for name in ("rpcanet", "rpcanet++")])
@pytest.mark.parametrize(
    ("channels", "size"), [(32, (1, 1)), (32, (40, 50)), (32, (256, 256)), (8, (40, 50)), (64, (40, 50))]
)
def test_on_a_gpu_bfloat16_is_near_float32(case, channels, size):
    net, image = settled(case, channels=channels), torch.rand(2, 1, *size)
    with torch.no_grad():
        exact = net(image)
        fast = rpcanet.optimize(net.cuda(), torch.bfloat16)
        assert all(isinstance(stage, StageOnChip) for stage in fast.stages)
        for _ in range(3):
            for ours, theirs in zip(fast(image.cuda())[:3], exact[:3], strict=True):
                assert relative(ours.cpu(), theirs) < 0.01
    assert next(fast.parameters()).is_cuda


@pytest.mark.parametrize(
    "case", [pytest.param(name, marks=gpu) for name in ("rpcanet", "rpcanet++", "drpca_net")]
)
def test_on_a_gpu_float32_equals_the_cpu(case, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    net, image = settled(case, channels=32), torch.rand(2, 1, 40, 50)
    with torch.no_grad():
        exact, found = net(image), rpcanet.optimize(net.cuda())(image.cuda())
    for ours, theirs in zip(found[:3], exact[:3], strict=True):
        assert relative(ours.cpu(), theirs) < 1e-5


@pytest.mark.parametrize("case", [pytest.param(name, marks=gpu) for name in ("rpcanet", "rpcanet++")])
def test_on_a_gpu_gradients_of_the_picture_go_layer_by_layer(case):
    """As near to float32 as those of the layers in 16 bits on a CPU."""
    net, image = settled(case, channels=32), torch.rand(1, 1, 40, 50)
    grads = []
    fast = rpcanet.optimize(deepcopy(net).cuda(), torch.bfloat16)
    for form, picture in ((net, image), (in_kernels(net), image), (fast, image.cuda())):
        leaf = picture.clone().requires_grad_()
        grads.append(torch.autograd.grad(form(leaf).background.square().sum(), leaf)[0].cpu())
    assert relative(grads[2], grads[0]) < 1.5 * relative(grads[1], grads[0])
