"""The recipes in tools/configs: one for each data set, with the published numbers."""

from pathlib import Path

import pytest

from unfoldkit import rpcanet
from unfoldkit.datasets import PUBLISHED
from unfoldkit.tools import train, train_estimator
from unfoldkit.tools.train import configuration_from, parser

CONFIGS = Path(__file__).parents[2] / "tools" / "configs"
# size, batch, epochs, rate, crops, mean, std
INFRARED = (256, 8, 800, 1e-4, False, 0.0, 255.0)
RECIPES = {
    "sirst": INFRARED,
    "nudt_sirst": INFRARED,
    "irstd_1k": INFRARED,
    "sirst_aug": (256, 8, 400, 1e-4, False, 0.0, 255.0),
    "drive": (256, 4, 400, 5e-4, True, 83.5949, 54.1751),
    "stare": (256, 4, 400, 5e-4, True, 98.1656, 52.3300),
    "chase_db1": (256, 4, 400, 5e-4, True, 59.8713, 46.8442),
    "neu_seg": (200, 8, 200, 1e-4, False, 0.0, 255.0),
    "sd_saliency_900": (200, 8, 400, 1e-4, False, 0.0, 255.0),
}


@pytest.mark.parametrize("stages", [3, 6, 9])
@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_is_the_published_one(name, stages):
    options = [f"--config={CONFIGS / name}.yaml", f"--network.stages={stages}"]
    network, data, recipe, _ = vars(configuration_from(parser().parse_args(options))).values()
    assert (network.name, network.stages, network.channels) == ("rpcanet++", stages, 32)
    assert data.name == name
    assert (
        data.size,
        data.batch_size,
        recipe.epochs,
        recipe.learning_rate,
        data.crop,
        data.mean,
        data.std,
    ) == RECIPES[name]
    assert recipe.protocol == PUBLISHED[name].protocol
    assert recipe.seed == 42


def test_every_configuration_parses():
    for path in CONFIGS.glob("*.yaml"):
        tool = train_estimator if path.name.startswith("unfolded") else train
        tool.configuration_from(tool.parser().parse_args([f"--config={path}"]))


@pytest.mark.parametrize("data", ["sirst_{}_small", "scenes_{}"])
def test_low_rank_and_plain_network_are_compared_at_equal_size_and_training(data):
    def recipe(name):
        options = [f"--config={CONFIGS / data.format(name)}.yaml"]
        network, *rest = vars(configuration_from(parser().parse_args(options))).values()
        net = rpcanet.build(**vars(network))
        return type(net), sum(p.numel() for p in net.parameters()), rest

    (kind, size, rest), (plain, plain_size, plain_rest) = recipe("lowrank"), recipe("equal")
    assert (kind, plain) == (rpcanet.LowRankRPCANet, rpcanet.RPCANet)
    assert abs(size - plain_size) < 0.02 * size
    assert rest == plain_rest
