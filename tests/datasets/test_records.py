"""One record for each data set holds what the published recipes and protocols say."""

import pytest

from unfoldkit.datasets import NAMES, PUBLISHED, record_of
from unfoldkit.datasets.records import RECORDS

VESSEL_LEVELS = {
    "drive": (83.59488677978516, 54.175140380859375),
    "stare": (98.16558837890625, 52.33002853393555),
    "chase_db1": (59.87125015258789, 46.84417724609375),
}
WITH_EMPTY = {"sirst_aug", "sirst_v2"}
# size, window, batch, epochs, rate, augmentation
RECIPES = {
    "sirst": (256, 0, 8, 800, 1e-4, True),
    "sirst_v2": (256, 0, 8, 800, 1e-4, True),
    "nudt_sirst": (256, 0, 8, 800, 1e-4, False),
    "irstd_1k": (256, 0, 8, 800, 1e-4, False),
    "sirst_aug": (256, 0, 8, 400, 1e-4, True),
    "drive": (0, 256, 4, 400, 5e-4, True),
    "stare": (0, 256, 4, 400, 5e-4, True),
    "chase_db1": (0, 256, 4, 400, 5e-4, True),
    "neu_seg": (200, 0, 8, 200, 1e-4, False),
    "sd_saliency_900": (200, 0, 8, 400, 1e-4, False),
}


@pytest.mark.parametrize("name", RECORDS)
def test_the_recipe_is_the_authors(name):
    preparation, recipe = record_of(name).preparation, record_of(name).recipe
    assert RECIPES[name] == (preparation.size, *recipe[1:5], recipe.augment)
    assert recipe.keep_last_batch
    assert recipe.look_every == 100


@pytest.mark.parametrize("name", RECORDS)
def test_the_preparation_is_the_authors(name):
    found = record_of(name).preparation
    if name in VESSEL_LEVELS:
        assert found == ("pillow", 0, *VESSEL_LEVELS[name], 32, "half", False)
    else:
        level = {"neu_seg": "any", "sd_saliency_900": "half"}.get(name, "maximum")
        assert found == ("opencv", RECIPES[name][0], 0.0, 255.0, 1, level, name in WITH_EMPTY)


@pytest.mark.parametrize("name", ["folder", "synthetic", "a set of one's own"])
def test_other_data_has_a_record_too(name):
    record = record_of(name)
    assert record.protocol == "overlap"
    assert record.preparation == ("opencv", 256, 0.0, 255.0, 1, "half", False)
    assert record.recipe.augment


def test_no_published_row_is_claimed_for_sirst_v2():
    assert set(NAMES) == {"synthetic", "folder", "sirst_v2", *PUBLISHED}
    assert "sirst_v2" not in PUBLISHED
