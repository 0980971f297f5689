"""The networks against outputs of the published implementation."""

import pytest
import torch

from unfoldkit.rpcanet import from_published

pytestmark = pytest.mark.reference


@pytest.mark.parametrize(("mode", "tolerance"), [("eval", 1e-5), ("train", 1e-4)])
@pytest.mark.parametrize("case", ["rpcanet_s6", "rpcanet_plus_plus_s3", "drpca_net_s2", "l_rpcanet_s2"])
def test_outputs_equal_the_published_implementation(reference_file, case, mode, tolerance):
    stored = torch.load(reference_file(f"reference/{case}.pt"), weights_only=True)
    net = from_published(stored["state_dict"]).train(mode == "train")
    with torch.no_grad():
        decomposition = net(stored["input"])
    for part, name in ((decomposition.object, "object"), (decomposition.restoration, "reconstruction")):
        expected = stored[f"{mode}_{name}"]
        assert ((part - expected).norm() / expected.norm()).item() < tolerance
