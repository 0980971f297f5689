"""The fast forms compute what the plain layers compute: in inference, in training, stage by stage."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import pytest
import torch

from unfoldkit import rpcanet
from unfoldkit.rpcanet import Decomposition, decomposition_loss
from unfoldkit.rpcanet.inside.interpretation import look_inside
from unfoldkit.tools.benchmarks.plain.networks import plain

NETWORKS = ["rpcanet", "rpcanet++", "drpca_net", "l_rpcanet"]


def settled_pair(name, stages=2, channels=8):
    """The plain network and the product's, in float64, with equal weights and running statistics."""
    torch.manual_seed(0)
    baseline = plain(name, stages, channels).double()
    with torch.no_grad():
        for _ in range(3):
            baseline(torch.rand(2, 1, 24, 24, dtype=torch.float64))
    return baseline, rpcanet.from_published(baseline.state_dict()).double()


def scene(batch=2, size=(30, 25)):
    image = torch.rand(batch, 1, *size, dtype=torch.float64)
    return image, (image > 0.9).double()


def relative(ours, exact):
    return ((ours.double() - exact.double()).norm() / exact.double().norm()).item()


def gradients(net, image, mask):
    loss = decomposition_loss(Decomposition(*net(image)[:3]), image, mask).total
    return torch.autograd.grad(loss, tuple(net.parameters()), allow_unused=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_training_form_equals_plain_layers(name):
    baseline, net = settled_pair(name)
    image, mask = scene()
    baseline.train(), net.train()
    for ours, theirs in zip(net(image)[:3], baseline(image), strict=True):
        assert relative(ours, theirs) < 1e-12
    named = zip(dict(baseline.named_parameters()), gradients(baseline, image, mask), strict=True)
    expected = rpcanet.from_published({**baseline.state_dict(), **dict(named)})  # the same change of layout
    for ours, theirs in zip(gradients(net, image, mask), expected.parameters(), strict=True):
        torch.testing.assert_close(ours.float(), theirs.detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (17, 40), (96, 80)])
def test_inference_form_equals_the_network(name, size):
    net = settled_pair(name)[1].float().eval()
    image = torch.rand(2, 1, *size)
    with torch.no_grad():
        exact, fast = net(image, return_stages=True), rpcanet.optimize(net)(image, return_stages=True)
    assert len(fast.stages) == 2
    for ours, theirs in zip((*fast.stages[0], *fast[:3]), (*exact.stages[0], *exact[:3]), strict=True):
        assert ours.dtype == torch.float32
        assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_inference_in_bfloat16_keeps_planes_in_float32(name):
    net = settled_pair(name)[1].float().eval()
    image = torch.rand(2, 1, 40, 30)
    with torch.no_grad():
        exact, fast = net(image), rpcanet.optimize(net, torch.bfloat16)(image)
    for ours, theirs in zip(fast[:3], exact[:3], strict=True):
        assert ours.dtype == torch.float32
        assert relative(ours, theirs) < 0.05


@pytest.mark.parametrize("units", [False, True])
def test_features_are_bfloat16_where_a_processor_has_units_for_it(units, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units)
    net = settled_pair("rpcanet++", channels=16)[1].float().eval()
    image, exact = torch.rand(2, 1, 40, 30), rpcanet.optimize(net)
    fast = rpcanet.optimize(net, torch.bfloat16)
    assert {p.dtype for p in fast.parameters()} == {torch.float32, torch.bfloat16 if units else torch.float32}
    difference = relative(fast(image).object, exact(image).object)
    assert 0 < difference < 0.05 if units else difference == 0


def test_the_network_stays_as_it_was():
    net = settled_pair("rpcanet++")[1].float().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fast = rpcanet.optimize(net)
    fast(torch.rand(1, 1, 20, 20))
    assert net.training
    assert not any(p.requires_grad for p in fast.parameters())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_no_stage_is_kept_unless_asked_for():
    assert rpcanet.optimize(rpcanet.RPCANet(stages=2, channels=4))(torch.rand(1, 1, 8, 8)).stages == ()


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"dtype must be torch.float32 or torch.bfloat16, got torch.float16"):
        rpcanet.optimize(rpcanet.RPCANet(stages=1), torch.float16)


@pytest.mark.parametrize(
    ("name", "stages", "size"),
    [
        ("rpcanet", 2, (30, 25)),
        ("rpcanet++", 2, (30, 25)),
        ("drpca_net", 1, (12, 13)),
        ("l_rpcanet", 1, (12, 13)),
    ],
)
def test_channels_last_gradients_equal_plain_layers(name, stages, size):
    """float32 gradients through the convolutions in C, of as many channels as those want.

    The more activations, the likelier one of them is so near 0 that rounding takes it to the other side of a
    rectifier's kink, which moves gradients by 1e-3 in any float32 form: deep networks get few pixels.
    """
    baseline, net = settled_pair(name, stages, channels=16)
    net = net.float().to(memory_format=torch.channels_last).train()
    image, mask = scene(batch=3, size=size)
    outputs = zip(net(image.float())[:3], baseline.train()(image), strict=True)
    assert all(relative(ours, theirs) < 1e-5 for ours, theirs in outputs)
    named = zip(dict(baseline.named_parameters()), gradients(baseline, image, mask), strict=True)
    expected = rpcanet.from_published({**baseline.state_dict(), **dict(named)}).double()
    found = gradients(net, image.float(), mask.float())
    pairs = [(a, b) for a, b in zip(found, expected.parameters(), strict=True) if a is not None]
    error = sum((a - b).double().square().sum() for a, b in pairs)
    assert error < 1e-3**2 * sum(b.square().sum() for _, b in pairs)


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpointing_changes_no_number(name):
    image, mask = scene()
    plain_way, checkpointed = (settled_pair(name, stages=3)[1].train() for _ in range(2))
    checkpointed.checkpointing = True
    pairs = zip(gradients(plain_way, image, mask), gradients(checkpointed, image, mask), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs if a is not None)
    for key, value in plain_way.state_dict().items():
        assert torch.equal(value, checkpointed.state_dict()[key]), key


def test_checkpointing_keeps_what_passes_between_stages_alone():
    """Bytes that the graph holds after the forward pass: one stage and a few planes for each other one."""

    def held(stages, checkpointing):
        net = rpcanet.RPCANetPlusPlus(stages=stages, channels=8)
        net.checkpointing = checkpointing
        own = {p.data_ptr() for p in net.parameters()}
        kept = {}

        def pack(tensor):
            if tensor.data_ptr() not in own:
                kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            decomposition = net(torch.rand(2, 1, 64, 64))
        assert decomposition.object.requires_grad
        return sum(kept.values())

    assert held(9, True) < 0.4 * held(9, False)
    assert held(9, True) - held(5, True) < 0.2 * (held(9, False) - held(5, False))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rpcanet++", "drpca_net", "l_rpcanet"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_form_equals_the_network(name, dtype):
    net = settled_pair(name, stages=4)[1].float().eval()
    image = torch.rand(2, 1, 40, 30)
    with torch.no_grad():
        exact, fast = net(image), rpcanet.optimize(net, dtype, compile=True)(image)
    assert relative(fast.object, exact.object) < (1e-5 if dtype == torch.float32 else 0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_answer_as_the_modules_do(name, dtype):
    fast = rpcanet.optimize(settled_pair(name)[1].float().cuda().eval(), dtype)
    image = torch.rand(2, 1, 40, 30, device="cuda")
    expected = fast(image, return_stages=True)
    for _ in range(3):
        fast(torch.rand_like(image), return_stages=True)
    found = fast(image, return_stages=True)
    assert len(fast.graphs) == 1
    for ours, theirs in zip(
        (*found[:3], *found.stages[0]), (*expected[:3], *expected.stages[0]), strict=True
    ):
        assert relative(ours, theirs) < (1e-6 if dtype == torch.float32 else 1e-3)
    hidden = look_inside(fast, image), look_inside(fast, image), look_inside(fast, image)
    for planes in zip(*(interior.stages[-1] for interior in hidden), strict=True):
        assert all(relative(plane, planes[0]) < 1e-3 for plane in planes)
    assert len(hidden[2].responses) == len(hidden[0].responses)
