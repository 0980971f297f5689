"""The networks are the published ones: sizes, shapes, and the equations of the stage loop."""

import pytest
import torch

from unfoldkit.rpcanet import DRPCANet, LRPCANet, RPCANet, RPCANetPlusPlus, build, decompose, optimize

ALL = [RPCANet, RPCANetPlusPlus, DRPCANet, LRPCANet]


def parameters(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("net", "millions"),
    [
        (RPCANet(), 0.680),
        (RPCANetPlusPlus(stages=3), 1.435),
        (RPCANetPlusPlus(stages=6), 2.915),
        (RPCANetPlusPlus(stages=9), 4.396),
    ],
    ids=["RPCANet", "S3", "S6", "S9"],
)
def test_parameter_counts_are_the_published_ones(net, millions):
    assert round(parameters(net) / 1e6, 3) == millions


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (DRPCANet(), 1_168_980),
        (DRPCANet(stages=2), 389_660),
        (LRPCANet(), 475_188),
        (LRPCANet(noise_layers=3), 433_428),
        (LRPCANet(narrow=4), 215_916),
    ],
    ids=["DRPCANet", "DRPCANet of two stages", "LRPCANet", "n = 3", "c = 4"],
)
def test_parameter_counts_to_the_last(net, count):
    assert parameters(net) == count


@pytest.mark.parametrize("network", ALL)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (17, 40)])
def test_any_height_and_width(network, shape):
    net = network(stages=2, channels=4).eval()
    for part in net(torch.rand(2, 1, *shape))[:3]:
        assert part.shape == (2, 1, *shape)
        assert part.isfinite().all()


@pytest.mark.parametrize("network", ALL)
def test_every_stage_on_request(network):
    net = network(stages=4, channels=4).eval()
    image = torch.rand(1, 1, 12, 12)
    decomposition = net(image, return_stages=True)
    assert len(decomposition.stages) == 4
    for part, last in zip(decomposition[:3], decomposition.stages[-1], strict=True):
        assert torch.equal(part, last)
    assert net(image).stages == ()


def test_stages_follow_the_alternation():
    """B = BAM(D' - O'),  O = OEM(O' + D' - B),  D = IRM(B + O),  from D_0 = image and O_0 = 0."""
    net = RPCANet(stages=3, channels=4).eval()
    restoration = torch.rand(1, 1, 10, 14)
    object_ = torch.zeros_like(restoration)
    decomposition = net(restoration, return_stages=True)
    for stage, output in zip(net.stages, decomposition.stages, strict=True):
        background = stage.bam(restoration - object_)
        object_ = stage.oem(object_ + restoration - background)
        restoration = stage.irm(background + object_)
        torch.testing.assert_close(output, (background, object_, restoration))


def test_memory_reaches_the_next_stage():
    net = RPCANetPlusPlus(stages=2, channels=4).eval()
    x = torch.rand(1, 1, 10, 10)
    _, memory = net.stages[0].bam(x, None)
    other = type(memory)(memory.hidden + 1, memory.cell)
    assert not torch.allclose(net.stages[1].bam(x, memory)[0], net.stages[1].bam(x, other)[0])


def test_contrast_prior_ignores_a_constant_picture_away_from_the_border():
    contrast = RPCANetPlusPlus(stages=1, channels=4).double().eval().stages[0].oem.dcpm.contrast
    contrast.gate = torch.nn.Identity()  # theta = 1 for a picture of ones
    answer = contrast(torch.ones(1, 4, 40, 40, dtype=torch.float64))
    assert answer[..., 8:-8, 8:-8].abs().max() < 1e-12
    assert answer.abs().max() > 1e-3


def test_published_initialisation():
    torch.manual_seed(0)
    net = RPCANetPlusPlus(stages=2)
    assert net.stages[0].oem.epsilon.item() == pytest.approx(0.01)
    gates = net.stages[1].bam.mam.lstm.gates_x.weight
    window = net.stages[0].oem.dcpm.contrast.weight
    assert gates[:32].std().item() == pytest.approx((2 / (2 * 32 * 9)) ** 0.5, rel=0.05)
    assert window.std().item() == pytest.approx((2 / (2 * 32 * 17**2)) ** 0.5, rel=0.05)


def test_gradients_reach_every_parameter():
    net = RPCANetPlusPlus(stages=2, channels=4)
    decomposition = net(torch.rand(2, 1, 20, 20))
    (decomposition.object.square().mean() + decomposition.restoration.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("network", [DRPCANet, LRPCANet])
def test_gradients_reach_every_parameter_of_the_family(network):
    torch.manual_seed(0)
    net = network(stages=2, channels=16)
    decomposition = net(torch.rand(2, 1, 20, 20))
    (decomposition.object.square().mean() + decomposition.restoration.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("network", ALL)
def test_a_picture_does_not_depend_on_its_batch(network):
    net, images = network(stages=2, channels=16).eval(), torch.rand(3, 1, 18, 23)
    with torch.no_grad():
        together, alone = net(images), net(images[1:2])
    torch.testing.assert_close(alone.object, together.object[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("image", [torch.rand(4, 4), torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8).long()])
def test_another_image_is_refused(image):
    with pytest.raises(ValueError, match=r"image must be a floating-point tensor of shape \(batch, 1"):
        RPCANet(stages=1)(image)


@pytest.mark.parametrize("form", [lambda net: net, optimize, lambda net: net.to(torch.bfloat16)])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_an_image_of_another_dtype_is_named_unless_autocast_converts_it(form, autocast, dtype):
    net = form(RPCANet(stages=1, channels=4).eval())
    takes = [torch.float32, torch.bfloat16] if autocast else [net.input_dtype]
    image = torch.rand(1, 1, 8, 8, dtype=dtype)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        if dtype in takes:
            assert net(image).object.isfinite().all()
        else:
            with pytest.raises(ValueError, match=f"image must be {net.input_dtype}.*got {dtype}"):
                net(image)


def test_grey_levels_are_brought_to_the_dtype_of_the_network():
    net, levels = RPCANet(stages=2, channels=4).eval(), torch.randint(0, 255, (20, 30))
    exact, half = decompose(net, levels, 16), decompose(net.to(torch.bfloat16), levels, 16)
    assert half.background.dtype == torch.bfloat16
    assert (half.background - exact.background).norm() < 0.02 * exact.background.norm()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stages": 0}, "stages must be at least 1"), ({"std": 0}, "std"), ({"channels": 2}, "channels")],
)
def test_impossible_networks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RPCANetPlusPlus(**options)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (DRPCANet, {"channels": 0}, "channels must be at least 1, got 0"),
        (DRPCANet, {"stages": 0}, "stages must be at least 1"),
        (LRPCANet, {"narrow": 0}, "narrow must be at least 1, got 0"),
        (LRPCANet, {"noise_layers": -1}, "noise_layers must be at least 0, got -1"),
        (LRPCANet, {"carry_noise": "yes"}, "carry_noise must be true or false, got 'yes'"),
    ],
)
def test_impossible_networks_of_the_family_are_refused(network, options, message):
    with pytest.raises(ValueError, match=message):
        network(**options)


def test_hugging_face_round_trip(tmp_path):
    net = RPCANetPlusPlus(stages=2, channels=4, mean=80.0, std=50.0).eval()
    net.save_pretrained(tmp_path)
    again = RPCANetPlusPlus.from_pretrained(tmp_path).eval()
    assert again.architecture == net.architecture
    image = torch.rand(1, 1, 9, 9)
    assert torch.equal(again(image).object, net(image).object)


@pytest.mark.parametrize(
    ("name", "shape"), [("rpcanet++", (1, 1, 16, 16)), ("lowrank", (1, 1, 16, 16)), ("rpcanet", (1, 1, 1, 1))]
)
def test_a_batch_of_one_picture_is_told_in_training(name, shape):
    net = build(name, stages=1, channels=4)
    with pytest.raises(ValueError, match=r"batches of at least 2 pictures, .*got a batch size of 1"):
        net.train()(torch.rand(shape))
    assert net.eval()(torch.rand(shape)).object.shape == shape
