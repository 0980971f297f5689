"""The benchmark's own honesty: both sides compute the same, and what it measures is written as it goes."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json

import pytest
import torch

from unfoldkit import rpcanet
from unfoldkit.tools import benchmark
from unfoldkit.tools.benchmarks.plain_networks import plain


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
