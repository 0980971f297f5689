"""DRPCA-Net and L-RPCANet: their equations, their noise, and what the published weights find in real pictures."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from unfoldkit import rpcanet
from unfoldkit.datasets import SegmentationDataset, open_pictures
from unfoldkit.rpcanet import DRPCANet, LRPCANet, train
from unfoldkit.rpcanet.inside.interpretation import interior_measures, look_inside
from unfoldkit.rpcanet.metrics import protocol
from unfoldkit.rpcanet.modules import (
    ChannelAttention,
    DynamicGate,
    DynamicSpatialAttention,
    SqueezeExcitation,
)
from unfoldkit.rpcanet.modules.residual_group import AttentiveBlock, FusedAttention
from unfoldkit.tools.benchmarks.plain.networks import plain
from unfoldkit.tools.train import configuration_from, parser

PICTURES = 4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(conv, x):
    """A 1x1 convolution of one pixel's channels, in NumPy."""
    return conv.weight.detach().numpy()[:, :, 0, 0] @ x + conv.bias.detach().numpy()


def features(channels=32, size=(7, 9)):
    return torch.randn(3, channels, *size, dtype=torch.float64)


def test_a_gate_is_a_number_for_each_picture():
    gate, z = DynamicGate().double(), features(1)
    for plane, found in zip(z.numpy(), gate(z), strict=True):
        hidden = np.maximum(dense(gate[1], plane.mean((1, 2))), 0)
        assert found.item() == pytest.approx(sigmoid(dense(gate[3], hidden)).item(), rel=1e-12)


def test_channel_attention_is_its_equation():
    attention, z = ChannelAttention(32).double(), features()
    for planes, found in zip(z.numpy(), attention(z), strict=True):
        pooled = planes.mean((1, 2)), planes.max((1, 2))
        answers = [dense(attention.fc[2], np.maximum(dense(attention.fc[0], x), 0)) for x in pooled]
        assert_close(
            found.detach().numpy(), planes * sigmoid(sum(answers))[:, None, None], rtol=1e-12, atol=0
        )


def test_squeeze_and_excitation_is_its_equation():
    attention, z = SqueezeExcitation(32).double(), features()
    first, _, second = attention.excitation
    for planes, found in zip(z.numpy(), attention(z), strict=True):
        scale = sigmoid(dense(second, np.maximum(dense(first, planes.mean((1, 2))), 0)))
        assert_close(found.detach().numpy(), planes * scale[:, None, None], rtol=1e-12, atol=0)


def test_every_picture_has_a_window_of_its_own():
    attention, z = DynamicSpatialAttention(32).double(), features()
    _, first, _, second = attention.kernel_generator
    for planes, found in zip(z.numpy(), attention(z), strict=True):
        window = dense(second, np.maximum(dense(first, planes.mean((1, 2))), 0)).reshape(3, 3)
        around = np.pad(planes.mean(0), 1)
        height, width = planes.shape[1:]
        response = sum(
            window[i, j] * around[i : i + height, j : j + width] for i in range(3) for j in range(3)
        )
        assert_close(found.detach().numpy(), planes * sigmoid(response), rtol=1e-12, atol=1e-15)


def test_fused_attention_is_one_after_the_other():
    *_, channel, spatial = AttentiveBlock(32).double().body
    z = features()
    with torch.no_grad():
        assert_close(FusedAttention(channel, spatial)(z.clone()), spatial(channel(z)), rtol=1e-12, atol=1e-15)


def test_drpca_net_mixes_by_the_gate_of_the_object_and_steps_by_the_gate_of_the_mixture():
    torch.manual_seed(0)
    net = DRPCANet(stages=2, channels=4).double().eval()
    image = torch.rand(2, 1, 12, 10, dtype=torch.float64)
    with torch.no_grad():
        stages = net(image, return_stages=True).stages
        before, second = stages[0], net.stages[1]
        background = second.bam(before.restoration - before.object)
        gamma = second.oem.gamma(before.object)
        x = gamma * before.object + (1 - gamma) * (before.restoration - background)
        wanted = x - second.oem.epsilon(x) * second.oem.layers(x)
    assert_close(stages[1].background, background)
    assert_close(stages[1].object, wanted)
    assert_close(stages[1].restoration, second.irm(background + wanted).detach())


@pytest.mark.parametrize(
    ("name", "stages", "channels", "sizes"),
    [
        ("drpca_net", 1, 48, {}),
        ("drpca_net", 3, 8, {}),
        ("l_rpcanet", 3, 32, {"narrow": 4, "noise_layers": 6}),
        ("l_rpcanet", 1, 32, {"narrow": 16, "noise_layers": 3}),
        ("l_rpcanet", 2, 16, {"narrow": 24, "noise_layers": 1}),
    ],
)
@pytest.mark.parametrize("form", ["eval", "train", "inference"])
def test_other_sizes_equal_plain_layers(name, stages, channels, sizes, form):
    torch.manual_seed(0)
    baseline, image = plain(name, stages, channels, **sizes), torch.rand(3, 1, 21, 34)
    with torch.no_grad():
        baseline(image)  # statistics of its own
        net = rpcanet.from_published(baseline.state_dict()).train(form == "train")
        found = (rpcanet.optimize(net) if form == "inference" else net)(image)[:3]
        for ours, theirs in zip(found, baseline.train(form == "train")(image), strict=True):
            assert (ours - theirs).norm() < (1e-4 if form == "train" else 1e-5) * theirs.norm()


@pytest.mark.parametrize("carry_noise", [False, True])
def test_noise_is_handed_on_where_asked_for(carry_noise):
    torch.manual_seed(0)
    net = LRPCANet(stages=3, channels=8, narrow=4, noise_layers=2, carry_noise=carry_noise).double().eval()
    restoration = torch.rand(2, 1, 12, 10, dtype=torch.float64)
    object_, noise = torch.zeros_like(restoration), torch.zeros_like(restoration)
    with torch.no_grad():
        decomposition = net(restoration, return_stages=True)
        for stage, output, found in zip(net.stages, decomposition.stages, decomposition.noises, strict=True):
            before = noise if carry_noise else torch.zeros_like(noise)
            background = stage.bam(restoration - object_ - before)
            object_ = stage.oem(object_ + restoration - background - before)
            noise = stage.noise(before + restoration - background - object_)
            restoration = stage.irm(background + object_ + noise)
            assert_close(output, (background, object_, restoration))
            assert_close(found, noise)
    assert net(torch.rand(1, 1, 8, 8, dtype=torch.float64)).noises == ()


def test_handing_noise_on_changes_the_answer_of_every_stage_but_the_first():
    torch.manual_seed(0)
    net = LRPCANet(stages=2, channels=8, narrow=4, noise_layers=2).eval()
    other = LRPCANet(stages=2, channels=8, narrow=4, noise_layers=2, carry_noise=True).eval()
    other.load_state_dict(net.state_dict())
    image = torch.rand(1, 1, 12, 10)
    ours, theirs = (n(image, return_stages=True).stages for n in (net, other))
    assert torch.equal(ours[0].object, theirs[0].object)
    assert not torch.allclose(ours[1].object, theirs[1].object)


@pytest.mark.parametrize("form", [lambda net: net, rpcanet.optimize], ids=["as trained", "inference form"])
@pytest.mark.parametrize("carry_noise", [False, True])
def test_noise_of_every_stage_is_measured(form, carry_noise):
    torch.manual_seed(0)
    net = LRPCANet(stages=3, channels=8, narrow=4, carry_noise=carry_noise).eval()
    image = torch.rand(2, 1, 20, 24)
    with torch.no_grad():
        interior = look_inside(form(net), image)
        measures = interior_measures(image, interior)
        noises = net(image, return_stages=True).noises
    wanted = torch.cat(noises, 1).square().mean((2, 3)).sqrt()
    assert (interior.responses, interior.memory_changes) == ((), ())
    assert_close(measures["noise"], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["drpca_net", "l_rpcanet"])
def test_hugging_face_round_trip(name, tmp_path):
    options = {"carry_noise": True, "narrow": 3} if name == "l_rpcanet" else {}
    net = rpcanet.build(name, stages=2, channels=16, std=50.0, **options).eval()
    net.save_pretrained(tmp_path)
    again = type(net).from_pretrained(tmp_path).eval()
    assert again.architecture == net.architecture
    image = torch.rand(1, 1, 9, 9)
    assert torch.equal(again(image).object, net(image).object)


@pytest.mark.parametrize("name", ["drpca_net", "l_rpcanet"])
def test_trained_from_the_command_line(name, tmp_path):
    small = ["--data.size=32", "--data.train_count=8", "--data.validation_count=2", "--data.workers=0"]
    options = [
        f"--network.name={name}",
        "--network.stages=1",
        "--network.channels=8",
        "--recipe.epochs=1",
        *small,
    ]
    train(configuration_from(parser().parse_args([*options, "--machine.accelerator=cpu"])), tmp_path)
    net = rpcanet.load_weights(tmp_path / "last.safetensors")
    assert isinstance(net, DRPCANet if name == "drpca_net" else LRPCANet)
    assert net(torch.rand(1, 1, 20, 30)).object.isfinite().all()


def plain_l_rpcanet(state, image):
    """O_K of the published L-RPCANet, written from its equations alone."""

    def conv(key, x):
        weight = state[f"{key}.weight"]
        return F.conv2d(x, weight, state[f"{key}.bias"], padding=weight.shape[2] // 2)

    def norm(key, x):
        shape = (1, -1, 1, 1)
        mean, variance, weight, bias = (
            state[f"{key}.{part}"].view(shape) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def step(part, x, convolutions, norms, last):
        """Convolutions, norms where there are any, rectifiers up to `last`; excitation; the final convolution."""
        z = x
        for index in convolutions:
            z = conv(f"{part}.{index}", z)
            z = norm(f"{part}.{index + 1}", z) if norms and index < last else z
            z = z.relu() if index < last else z
        side = part.rpartition(".")[0]
        hidden = conv(f"{side}.channel_attention.excitation.0", z.mean((2, 3), keepdim=True)).relu()
        scale = conv(f"{side}.channel_attention.excitation.2", hidden).sigmoid()
        return conv(f"{side}.final_conv", z * scale)

    restoration, object_ = image, torch.zeros_like(image)
    for k in range(6):
        stage = f"decos.{k}"
        x = restoration - object_
        background = x + step(f"{stage}.lowrank.convs", x, range(0, 13, 3), True, 12)
        x = object_ + restoration - background
        change = step(f"{stage}.sparse.convs", x, range(0, 15, 2), False, 14)
        object_ = x - state[f"{stage}.sparse.epsilon"] * change
        x = restoration - background - object_
        noise = x - state[f"{stage}.residual.sigma"] * step(
            f"{stage}.residual.convs", x, range(0, 15, 2), False, 14
        )
        x = background + object_ + noise
        restoration = step(f"{stage}.merge.mapping", x, range(0, 10, 3), True, 10)
    return object_


@pytest.mark.reference
def test_official_l_rpcanet_on_real_pictures(reference_file):
    """Logits and IoU of the first test pictures, as by the equations written out."""
    path = reference_file("weights/l_rpcanet_nudt_sirst_official.pkl")
    pictures = open_pictures("nudt_sirst", "test", reference_file("data/nudt_sirst"))
    samples = SegmentationDataset(pictures, size=256, mean=0, std=255)
    state = torch.load(path, map_location="cpu", weights_only=True)
    fast = rpcanet.optimize(rpcanet.load_weights(path))
    metrics, hits, union = protocol("overlap"), 0, 0
    for index in range(PICTURES):
        image, mask, _ = samples[index]
        with torch.inference_mode():
            logits, wanted = fast(image[None]).object, plain_l_rpcanet(state, image[None])
        assert (logits - wanted).norm() < 1e-5 * wanted.norm()
        metrics.update(logits.sigmoid(), mask[None])
        probability = wanted.sigmoid()
        predicted, target = probability / probability.max() > 0.5, mask[None] == mask.max()
        hits += (predicted & target).sum().item()
        union += (predicted | target).sum().item()
    values = metrics.compute()
    assert values["iou"].item() == pytest.approx(hits / union, abs=1e-4)
    assert values["iou"] > 0.9


@pytest.mark.slow
@pytest.mark.reference
def test_official_l_rpcanet_gives_the_published_numbers(reference_file):
    path = reference_file("weights/l_rpcanet_nudt_sirst_official.pkl")
    pictures = open_pictures("nudt_sirst", "test", reference_file("data/nudt_sirst"))
    samples = SegmentationDataset(pictures, size=256, mean=0, std=255)
    fast = rpcanet.optimize(rpcanet.load_weights(path))
    values = rpcanet.evaluate(fast, torch.utils.data.DataLoader(samples, 4), "overlap")
    found = [round(100 * values[name].item(), 2) for name in ("iou", "f1", "pd")]
    assert found == [92.38, 96.04, 98.41]
