"""Compressed networks: as small as asked, the same function in every form, and networks like any other."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

from copy import deepcopy

import pytest
import torch

from unfoldkit import kernels, rpcanet
from unfoldkit.kernels.factorisations import low_rank
from unfoldkit.kernels.features import SCALE
from unfoldkit.rpcanet.compression import thin
from unfoldkit.rpcanet.compression.calibration import layers_of, output_errors
from unfoldkit.rpcanet.compression.compress import METHODS, numbers, unit_costs
from unfoldkit.rpcanet.compression.curvature import FIDELITY, Weighing, decomposed, loss_draws
from unfoldkit.rpcanet.compression.forms import (
    DictionaryFactors,
    Factors,
    matrix_of,
    packed,
    spread,
    weight_of,
)
from unfoldkit.rpcanet.inference.export import export, exported, largest_difference
from unfoldkit.rpcanet.inference.on_chip import on_chip
from unfoldkit.rpcanet.modules import Memory

each_method = pytest.mark.parametrize("method", METHODS)
each_network = pytest.mark.parametrize("name", ["rpcanet", "rpcanet++", "drpca_net", "l_rpcanet", "lowrank"])


def settled(name="rpcanet++", stages=1, channels=8):
    """A network with running statistics of its own, whose layers have spectra that fall."""
    torch.manual_seed(0)
    net = rpcanet.build(name, stages=stages, channels=channels)
    with torch.no_grad():
        for _ in range(3):
            net(torch.rand(2, 1, 24, 24))
        for parameter in net.parameters():
            if parameter.ndim == 4 and min(parameter.shape[:2]) > 1 and parameter.shape[2] > 1:
                U, S, Vh = torch.linalg.svd(matrix_of(parameter), full_matrices=False)
                fallen = (U * S * 0.8 ** torch.arange(len(S))) @ Vh
                parameter.copy_(weight_of(fallen / fallen.norm() * parameter.norm(), parameter.shape))
        for stage in net.stages:
            if isinstance(getattr(stage.oem, "epsilon", None), torch.nn.Parameter):
                stage.oem.epsilon.fill_(0.5)
    return net.eval()


def pictures(count=2, size=24):
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(3))


def relative(ours, exact):
    return ((ours.double() - exact.double()).norm() / exact.double().norm()).item()


@each_method
def test_a_network_has_the_size_that_was_asked_for(method):
    net = settled()
    made = rpcanet.compress(net, method, 0.4, pictures())
    assert 0.35 < made.parameters / made.parameters_before <= 0.4
    assert made.parameters_before == sum(p.numel() for p in net.parameters())
    assert made.parameters == numbers(made.net) >= sum(p.numel() for p in made.net.parameters())
    assert all(layer.parameters_after < layer.parameters for layer in made.layers)
    assert all(layer.operations_after <= layer.operations and layer.error > 0 for layer in made.layers)


@each_method
def test_more_parameters_err_less(method):
    net, image = settled(), pictures(1, 40)
    errors = []
    for size in (0.2, 0.4, 0.8):
        small = rpcanet.compress(net, method, size, pictures()).net
        with torch.no_grad():
            errors.append(relative(small(image).object, net(image).object))
    assert errors[0] > errors[1] > errors[2]


def test_pictures_say_which_errors_matter():
    """On pictures of one kind the weighted form errs less at the outputs of nearly all layers."""
    net, seen = settled(stages=2), pictures(4).cumsum(-1) / 24
    rows = [rpcanet.compress(net, "separable", 0.25, given) for given in (seen, ())]
    ranked = {layer.name: layer for layer in rows[1].layers}
    with_pictures = [layer for layer in rows[0].layers if layer.name in ranked]
    weights = {layer.name: rows[1].net.get_submodule(layer.name).weight.detach() for layer in with_pictures}
    blind = output_errors(net, list(seen), weights)
    better = [
        layer.error < blind[layer.name]
        for layer in with_pictures
        if layer.parameters_after <= ranked[layer.name].parameters_after
    ]
    assert len(better) > 3
    assert sum(better) >= 0.9 * len(better)


@each_network
def test_the_networks_of_this_package_can_be_compressed(name):
    net, image = settled(name), pictures(2, 33)
    made = rpcanet.compress(net, "separable", 0.5, pictures())
    with torch.no_grad():
        exact, fast = made.net(image), rpcanet.optimize(made.net)(image)
    for ours, theirs in zip(fast[:3], exact[:3], strict=True):
        assert relative(ours, theirs) < 1e-5


@each_method
@pytest.mark.parametrize("repays", [0.0, torch.inf], ids=["thin", "plain"])
def test_the_fast_form_is_the_network_in_thin_convolutions_and_without(method, repays, monkeypatch):
    monkeypatch.setitem(thin.REPAYS, "cpu", repays)
    net, image = rpcanet.compress(settled(stages=2), method, 0.3, pictures()).net, pictures(2, 35)
    with torch.no_grad():
        exact, fast = net(image, return_stages=True), rpcanet.optimize(net)
        answer = fast(image, return_stages=True)
    for ours, theirs in zip((*answer.stages[0], *answer[:3]), (*exact.stages[0], *exact[:3]), strict=True):
        assert relative(ours, theirs) < 1e-5
    windows = [
        part.weight.shape[2:] for part in fast.modules() if hasattr(part, "weight") and part.weight.ndim == 4
    ]
    factored = repays == 0 and method != "low_rank_plus_sparse"
    assert ((17, 1) in windows, (17, 17) in windows) == (factored, not factored)


def test_gradients_flow_through_thin_and_dense_forms_alike():
    """A compressed network trains as the network with the weights that it makes."""
    net = rpcanet.compress(settled(stages=2), "monarch", 0.3, pictures()).net.double().train()
    image = pictures(2, 20).double()
    loss = rpcanet.decomposition_loss(net(image), image, (image > 0.9).double()).total
    loss.backward()
    layer = net.stages[1].bam.mam.rb1.conv1
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.factors.parameters())
    assert all(p.grad is not None for p in net.parameters())


@each_method
def test_a_file_holds_a_compressed_network(method, tmp_path):
    net, image = rpcanet.compress(settled(), method, 0.3, pictures()).net, pictures(1, 30)
    rpcanet.save_weights(net, tmp_path / "net.safetensors")
    rpcanet.save_weights(net, tmp_path / "half.safetensors", half=True)
    net.save_pretrained(tmp_path / "folder")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    with torch.no_grad():
        exact = net(image).object
        for name in ("net.safetensors", "folder", "net.pth"):
            assert relative(rpcanet.load_weights(tmp_path / name)(image).object, exact) < 1e-5
        again = rpcanet.RPCANetPlusPlus.from_pretrained(str(tmp_path / "folder")).eval()
        assert relative(again(image).object, exact) < 1e-5
        assert relative(rpcanet.load_weights(tmp_path / "half.safetensors")(image).object, exact) < 1e-2


@pytest.mark.slow
@each_method
def test_a_compressed_network_is_exported(method, tmp_path):
    net = rpcanet.compress(settled(), method, 0.3, pictures()).net
    export(net, tmp_path / "net.pt2", "torch-export")
    run = exported(tmp_path / "net.pt2", "torch-export")
    assert largest_difference(net, run, pictures(2, 21)) < 1e-4


@pytest.mark.parametrize(
    "method",
    ["monarch", *(pytest.param(m, marks=pytest.mark.slow) for m in METHODS if m != "monarch")],
)
def test_a_compressed_network_goes_to_onnx(method, tmp_path):
    pytest.importorskip("onnxruntime")
    net = rpcanet.compress(settled(), method, 0.3, pictures()).net
    export(net, tmp_path / "net.onnx", "onnx")
    assert largest_difference(net, exported(tmp_path / "net.onnx", "onnx"), pictures(2, 21)) < 1e-4


def test_the_form_on_chip_has_the_weights_that_the_factors_make():
    net = rpcanet.compress(settled(stages=2, channels=16), "monarch", 0.3, pictures()).net
    kinds = [type(part) for part in net.stages[1].modules()]
    plane, memory = pictures(1, 24), Memory(*torch.rand(2, 1, 16, 24, 24))
    with torch.no_grad():
        exact, _ = net.stages[1](plane, plane / 10, memory)
        held = Memory(*((SCALE * x).half() for x in memory))
        found, _ = on_chip(net.stages[1])(plane, plane / 10, held)
    assert [type(part) for part in net.stages[1].modules()] == kinds
    for ours, theirs in zip(found, exact, strict=True):
        assert relative(ours, theirs) < 0.01


@each_method
def test_the_loss_falls_in_every_form(method):
    net = rpcanet.compress(settled(), method, 0.3, pictures()).net.train()
    image, mask = pictures(2, 16), torch.zeros(2, 1, 16, 16)
    image[..., 5:8, 6:9], mask[..., 5:8, 6:9] = 2.0, 1.0
    optimiser, losses = torch.optim.Adam(net.parameters(), 3e-3), []
    for _ in range(18):
        loss = rpcanet.decomposition_loss(net(image), image, mask).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert losses == sorted(losses, reverse=True)


@each_method
def test_a_step_of_training_moves_factors_alike(method):
    """What is multiplied is of one length: else Adam's equal steps shake the shorter factor."""
    net = rpcanet.compress(settled(), method, 0.3, pictures()).net
    for part in net.modules():
        if isinstance(part, DictionaryFactors):
            first, second = part.atoms, part.coefficients()
        elif isinstance(part, Factors):
            first, second = part.left, part.right
        else:
            continue
        assert 0.9 < first.norm() / second.norm() < 1.1


def loss_above_its_own(net, changed, image):
    """The growth of the loss of `loss_draws` from the answer of `net` to that of `changed`."""
    with torch.no_grad():
        own, found = net(image), changed(image)
    p = own.object.sigmoid()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    objects = entropy(found.object, p, reduction="sum") - entropy(own.object, p, reduction="sum")
    return objects / p.sum() + FIDELITY * (found.restoration - own.restoration).square().mean()


def test_draws_tell_what_an_error_of_a_weight_costs():
    """Of a small error, within what so many draws scatter by: a standard deviation is an eighth."""
    net, image = settled().double(), pictures(1, 12).double()
    draws = loss_draws(net, [image[0]] * 128)
    for layer in ("bam.mam.rb1.conv1", "oem.layers.2", "oem.dcpm.contrast", "irm.layers.3"):
        changed = deepcopy(net)
        weight = changed.stages[0].get_submodule(layer).weight
        error = 1e-3 * torch.randn(weight.shape, dtype=torch.float64)
        weight.data += error
        predicted = (draws[f"stages.0.{layer}"] * matrix_of(error)).sum((1, 2)).square().mean() / 2
        assert predicted.item() == pytest.approx(loss_above_its_own(net, changed, image).item(), rel=0.4)


def test_a_layer_that_nothing_depends_on_gets_the_least():
    net = settled(stages=2)
    name, next_one = (f"stages.0.bam.mam.rb1.conv{i}" for i in (1, 2))
    with torch.no_grad():
        net.get_submodule(next_one).weight.zero_()
    rows = {layer.name: layer for layer in rpcanet.compress(net, "separable", 0.4, pictures()).layers}
    assert rows[name].parameters_after == unit_costs(net.get_submodule(name).weight.shape)[0]


@each_method
def test_errors_are_weighed_as_the_loss_weighs_them(method):
    """Where few inputs and outputs count, the form errs less there than the one that knows of none."""
    torch.manual_seed(2)
    weight = torch.randn(8, 8, 3, 3)
    G, H = (torch.diag(torch.logspace(0, -6, 24).double()) for _ in range(2))
    blind, seeing = (
        matrix_of(weight - METHODS[method](weight, 8, weighing)().detach()).double()
        for weighing in (Weighing(), Weighing(decomposed(G), decomposed(H)))
    )
    assert (G.sqrt() @ seeing @ H.sqrt()).norm() < 0.8 * (G.sqrt() @ blind @ H.sqrt()).norm()


@each_method
def test_a_matrix_that_weighs_errors_is_decomposed_once(method, monkeypatch):
    """G and H of each layer; beside them the blocks of both where a Monarch matrix is closest."""
    seen = []
    monkeypatch.setattr(low_rank, "eigh", lambda matrix: seen.append(matrix) or kernels.eigh(matrix))
    made = rpcanet.compress(settled(), method, 0.4, pictures())
    blocks = 2 * len(made.layers) if method == "monarch" else 0
    assert len(seen) == 2 * len(layers_of(settled())) + blocks


def test_a_sparse_matrix_is_kept_by_its_nonzeros():
    matrix = torch.randn(5, 7) * (torch.rand(5, 7) > 0.6)
    kept = packed(matrix)
    assert len(kept["values"]) == (matrix != 0).sum()
    assert len(kept["marks"]) == 5
    assert torch.equal(spread(**kept, shape=(5, 7)), matrix)


def test_the_network_stays_as_it_was():
    net = settled().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    rpcanet.compress(net, "separable", 0.5, pictures())
    assert net.training
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_caller_may_have_gradients_off(mode):
    net = settled()
    exact = rpcanet.compress(net, "separable", 0.4, pictures())
    with mode():
        made = rpcanet.compress(net, "separable", 0.4, pictures())
    assert made.layers == exact.layers
    made.net(pictures()).object.sum().backward()


def test_networks_as_they_are_run_without_any_of_this(monkeypatch):
    """Same modules, same numbers to the bit, and nothing of compressed forms is called."""
    net, image = settled(), pictures(1, 24)
    kinds = [type(module) for module in net.modules()]
    with torch.no_grad():
        before = net(image).object, rpcanet.optimize(net)(image).object
    rpcanet.compress(net, "separable", 0.5, pictures())

    def refuse(*_):
        raise AssertionError("a form of compressed networks is used")

    monkeypatch.setattr(Factors, "forward", refuse)
    monkeypatch.setattr(thin.Shuffle, "forward", refuse)
    monkeypatch.setattr(thin, "repays", refuse)
    assert [type(module) for module in net.modules()] == kinds
    fast = rpcanet.optimize(net)
    assert not any(isinstance(module, Factors | thin.Shuffle) for module in fast.modules())
    with torch.no_grad():
        after = net(image).object, fast(image).object
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("method", "size", "message"),
    [
        ("svd", 0.5, "method must be one of separable, monarch"),
        ("separable", 0.01, r"size must be from 0\.\d+ and below 1"),
        ("separable", 1.0, "below 1"),
        ("separable", float("nan"), "below 1"),
    ],
)
def test_what_cannot_be_met_is_refused(method, size, message):
    with pytest.raises(ValueError, match=message):
        rpcanet.compress(settled(), method, size)


def test_a_compressed_network_is_not_compressed_again():
    net = rpcanet.compress(settled(), "separable", 0.5).net
    with pytest.raises(ValueError, match="compressed already"):
        rpcanet.compress(net, "separable", 0.5)


@pytest.mark.parametrize("damage", ["shape", "marks", "part"])
def test_factors_that_make_no_weight_are_refused(damage, tmp_path):
    state = rpcanet.compress(settled(), "low_rank_plus_sparse", 0.3, pictures()).net.state_dict()
    key = next(key for key in state if key.endswith(".factors.marks")).removesuffix("marks")
    if damage == "shape":
        state[f"{key}left"] = state[f"{key}left"][:-1]
    elif damage == "marks":
        state[f"{key}marks"] = state[f"{key}marks"] | 255
    else:
        del state[f"{key}values"]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=f"net.pth: the tensors do not fit RPCANetPlusPlus: .*{key[:-9]}"):
        rpcanet.load_weights(tmp_path / "net.pth")
