"""The benchmark's own honesty: both sides compute the same, and what it measures is written as it goes."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json

import pytest
import torch

from unfoldkit import rpcanet
from unfoldkit.rpcanet.networks.weights import NETWORKS
from unfoldkit.tools import benchmark
from unfoldkit.tools.benchmarks import family
from unfoldkit.tools.benchmarks.plain.networks import plain


@pytest.mark.parametrize(
    ("name", "stages"), [("rpcanet", 2), ("rpcanet++", 2), ("drpca_net", 2), ("l_rpcanet", 2)]
)
def test_the_baseline_is_the_same_network_layer_by_layer(name, stages):
    torch.manual_seed(0)
    baseline = plain(name, stages)
    image = torch.rand(2, 1, 40, 33)
    baseline(image)  # statistics of its own
    net = rpcanet.from_published(baseline.state_dict()).eval()
    with torch.no_grad():
        for ours, theirs in zip(net(image)[:3], baseline.eval()(image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("what", "most"), [("inference", 1e-4), ("training", 1e-3)])
def test_networks_are_measured_and_compared_in_one_run(what, most, tmp_path, capsys):
    file = tmp_path / "rows.json"
    options = [
        "--networks",
        "RPCANet",
        "--sizes",
        "32",
        "--batches",
        "2",
        "--forms",
        "float32",
        "--rounds",
        "1",
    ]
    assert benchmark.main(["networks", "--device", "cpu", "--what", what, "--json", str(file), *options]) == 0
    content = json.loads(file.read_text())
    [row] = content["rows"]
    assert row["difference"] < most
    assert row["ratio"] > 0
    assert content["setting"]["device"] == "cpu"
    assert content["setting"]["product_flops_per_second"]["float32"] > 0
    assert "times faster" in capsys.readouterr().out


def test_the_family_is_one_table(tmp_path, monkeypatch, capsys):
    members = {
        "DRPCA-Net": family.Member("drpca_net", 1),
        "L-RPCANet, c = 4, n = 6": family.Member("l_rpcanet", 1, {"narrow": 4}),
    }
    monkeypatch.setattr(family, "MEMBERS", members)
    monkeypatch.setattr(family, "SIZE", 16)
    file = tmp_path / "family.json"
    assert benchmark.main(["family", "--rounds", "1", "--json", str(file)]) == 0
    first, second = json.loads(file.read_text())["rows"]
    assert (first["parameters"], second["parameters"]) == (194_830, 35_986)
    assert first["published_iou"] == dict(zip(family.SETS, (94.16, 64.14, 75.52, 76.5), strict=True))
    assert second["published_iou"]["sirst_aug"] == 74.56
    assert first["seconds"] > 0
    # a 3x3 convolution of 32 channels takes 2 * 9 * 32 * 32 operations a pixel; DRPCA-Net has 20 of them
    assert 20 < first["flops"] / (2 * 9 * 32 * 32 * 16**2) < 21
    assert "94.16" in capsys.readouterr().out


def test_every_network_has_a_row():
    assert {member.name for member in family.MEMBERS.values()} == set(NETWORKS)


def test_compressed_networks_are_measured_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(family, "SIZE", 32)
    torch.manual_seed(0)
    net = rpcanet.build("rpcanet++", stages=1, channels=8)
    half = rpcanet.compress(net, "separable", 0.5)
    rpcanet.save_weights(net, tmp_path / "net.safetensors", {"data": {"size": 32}})
    rpcanet.save_weights(half.net, tmp_path / "half.safetensors", {"data": {"size": 32}})
    given = [f"S1={tmp_path}/net.safetensors", f"separable 0.5={tmp_path}/half.safetensors"]
    file, figure = tmp_path / "rows.json", tmp_path / "figure.png"
    options = ["--rounds", "1", "--dataset", "synthetic", "--json", str(file)]
    assert benchmark.main(["compression", *given, *options]) == 0
    whole, small = json.loads(file.read_text())["rows"]
    assert (whole["parameters"], small["parameters"]) == (half.parameters_before, half.parameters)
    assert min(whole["seconds"], small["seconds"]) > 0
    assert 0 <= small["iou"] <= 1
    again = tmp_path / "times.json"
    options = [
        "--rounds",
        "1",
        "--dataset",
        "synthetic",
        "--times-alone",
        "--device",
        "cpu",
        "--json",
        str(again),
    ]
    assert benchmark.main(["compression", given[1], *options]) == 0
    assert [row["iou"] for row in json.loads(again.read_text())["rows"]] == [None]
    files = [str(file), str(again)]
    assert benchmark.main(["compression", "--results", *files, "--figure", str(figure)]) == 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "separable 0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["kernels", "--only", "nosuch", "--rounds", "1", "--device", "cpu"], "--only: no operation"),
        (["estimators", "--only", "nosuch"], "--only: no such case"),
        (["kernels", "--rounds", "0"], "--rounds: must be at least 1"),
        (["surface", "--trials", "0"], "--trials: must be at least 1"),
        (["classical", "--device", "tpu"], "--device: invalid choice"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark.main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
