"""The recipes in tools/configs: one for each data set, with the published numbers."""

from pathlib import Path

import pytest

from unfoldkit import rpcanet
from unfoldkit.datasets import PUBLISHED
from unfoldkit.tools import train, train_estimator
from unfoldkit.tools.train import configuration_from, parser

CONFIGS = Path(__file__).parents[2] / "tools" / "configs"
# size, crops, augmentation, batch, epochs, rate, mean, std, as ../shared/spec/rpcanet.md has them
RECIPES = {
    "sirst": (256, False, True, 8, 800, 1e-4, 0.0, 255.0),
    "nudt_sirst": (256, False, False, 8, 800, 1e-4, 0.0, 255.0),
    "irstd_1k": (256, False, False, 8, 800, 1e-4, 0.0, 255.0),
    "sirst_aug": (256, False, True, 8, 400, 1e-4, 0.0, 255.0),
    "drive": (256, True, True, 4, 400, 5e-4, 83.59488677978516, 54.175140380859375),
    "stare": (256, True, True, 4, 400, 5e-4, 98.16558837890625, 52.33002853393555),
    "chase_db1": (256, True, True, 4, 400, 5e-4, 59.87125015258789, 46.84417724609375),
    "neu_seg": (200, False, False, 8, 200, 1e-4, 0.0, 255.0),
    "sd_saliency_900": (200, False, False, 8, 400, 1e-4, 0.0, 255.0),
}


@pytest.mark.parametrize("stages", [3, 6, 9])
@pytest.mark.parametrize("name", PUBLISHED)
def test_recipe_is_the_published_one(name, stages):
    """By the configuration file, and by the data set's name alone."""
    for option in (f"--config={CONFIGS / name}.yaml", f"--data.name={name}"):
        options = [option, f"--network.stages={stages}"]
        network, data, recipe, _ = vars(configuration_from(parser().parse_args(options))).values()
        assert (network.name, network.stages, network.channels) == ("rpcanet++", stages, 32)
        assert data.name == name
        assert (
            data.size,
            data.crop,
            data.augment,
            data.batch_size,
            recipe.epochs,
            recipe.learning_rate,
            data.mean,
            data.std,
        ) == RECIPES[name]
        assert recipe.protocol == PUBLISHED[name].protocol
        assert (recipe.look_every, recipe.keep_last_batch, recipe.loss, recipe.seed) == (
            100,
            True,
            "soft_iou",
            42,
        )


def test_a_choice_wins_over_the_record():
    chosen = ["--config", str(CONFIGS / "nudt_sirst.yaml"), "--data.augment=true", "--recipe.epochs=45"]
    configuration = configuration_from(parser().parse_args(chosen))
    assert configuration.data.augment
    assert configuration.recipe.epochs == 45


def test_every_configuration_parses():
    for path in set(CONFIGS.glob("*.yaml")) - {
        CONFIGS / "mimo_ofdm_chest.yaml"
    }:  # of simulate, in tests/ofdm
        tool = train_estimator if path.name.startswith("unfolded") else train
        tool.configuration_from(tool.parser().parse_args([f"--config={path}"]))


@pytest.mark.parametrize("data", ["sirst_{}_small", "scenes_{}"])
def test_low_rank_and_plain_network_are_compared_at_equal_size_and_training(data):
    def recipe(name):
        options = [f"--config={CONFIGS / data.format(name)}.yaml"]
        network, *rest = vars(configuration_from(parser().parse_args(options))).values()
        net = rpcanet.build(**{name: value for name, value in vars(network).items() if name != "init"})
        return type(net), sum(p.numel() for p in net.parameters()), rest

    (kind, size, rest), (plain, plain_size, plain_rest) = recipe("lowrank"), recipe("equal")
    assert (kind, plain) == (rpcanet.LowRankRPCANet, rpcanet.RPCANet)
    assert abs(size - plain_size) < 0.02 * size
    assert rest == plain_rest
