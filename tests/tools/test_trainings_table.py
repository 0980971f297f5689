"""The tables of training runs from what train.py and evaluate.py leave."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json
from pathlib import Path

import pytest

from unfoldkit.tools.tables import trainings
from unfoldkit.tools.tables.markdown import marks_of
from unfoldkit.tools.train import configuration_from, parser

DATA = {"name": "drive", "train_split": "train", "batch_size": 4}
PUBLISHED = {"drive": {"RPCANet++ S3": {"iou": 69.86}, "RPCANet++ S6": {"iou": 70.35}}}


@pytest.fixture
def folder(tmp_path):
    """A function that leaves a run there, and what is measured of its weights."""
    (tmp_path / "trainings").mkdir()
    (tmp_path / "published.json").write_text(json.dumps(PUBLISHED))

    def left(name, stages, measured, augment=True, precision="bf16-mixed", **recipe):
        record = {
            "network": {"name": "rpcanet++", "stages": stages},
            "data": DATA | {"augment": augment},
            "recipe": {"epochs": 400, "seed": 42, "loss": "soft_iou"} | recipe,
            "looks": {"best": 0.7, "last": 0.69, "mean": 0.685, "looks": 40},
            "machine": {"precision": precision},
            "seconds": 52,
            "device": "H100",
        }
        (tmp_path / "trainings" / f"{name}.json").write_text(json.dumps(record))
        for kind, iou in measured.items():
            (tmp_path / "trainings" / f"{name}-{kind}.json").write_text(json.dumps({"iou": iou}))
        return tmp_path

    return left


def test_runs_stand_beside_what_is_published(folder):
    folder("drive_s6", 6, {"best": 0.7, "last": 0.69})
    found = trainings.tables(folder("drive_s3", 3, {"best": 0.699}))
    s3, s6 = found[marks_of("trainings")].splitlines()[2:]
    assert s3 == (
        "| DRIVE | RPCANet++ S3 | published | 400 | 42 | 69.86 | 69.90 |  | +0.04 "
        "| 70.00 | 68.50 | 40 | 52 | H100 |"
    )
    assert "| 70.35 | 70.00 | 69.00 | -0.35 |" in s6
    assert found[marks_of("published-rows")] == (
        "- DRIVE: RPCANet++ S3 69.86, ours 69.90 (+0.04); RPCANet++ S6 70.35, ours 70.00 (-0.35)."
    )


def test_a_run_whose_weights_were_not_measured_has_its_looks_alone(folder):
    found = trainings.tables(folder("drive_s3", 3, {}))
    [row] = found[marks_of("trainings")].splitlines()[2:]
    assert "| 69.86 |  |  |  | 70.00 | 68.50 | 40 |" in row
    assert found[marks_of("published-rows")] == ""


def test_other_seeds_and_our_own_recipe_follow_and_other_recipes_stand_in_the_table_alone(folder):
    folder("drive_s3_43", 3, {"best": 0.705}, seed=43)
    folder("drive_s3_plain", 3, {"best": 0.9}, augment=False)
    folder("drive_s3_exact", 3, {"best": 0.9}, precision="32-true")
    folder("drive_s3_batch", 3, {"best": 0.91, "last": 0.8}, loss="batch_iou")
    folder("drive_s3_own", 3, {"last": 0.9}, loss="batch_iou", epochs=2000)
    folder("drive_s3_own_43", 3, {"last": 0.91}, loss="batch_iou", epochs=2000, seed=43)
    folder("drive_s3_own_44", 3, {"last": 0.89}, loss="batch_iou", epochs=2000, seed=44)
    folder("drive_s3_own_20k", 3, {"last": 0.92}, loss="batch_iou", epochs=4000, least_steps=20000)
    found = trainings.tables(folder("drive_s3", 3, {"best": 0.699}))
    assert "| published, not augmented | 400 |" in found[marks_of("trainings")]
    assert "| published, float32 | 400 |" in found[marks_of("trainings")]
    assert (
        "| published, `batch_iou` | 400 | 42 | 69.86 | 91.00 | 80.00 | +10.14 |"
        in found[marks_of("trainings")]
    )
    assert "| own | 2000 | 42 | 69.86 |  | 90.00 | +20.14 |" in found[marks_of("trainings")]
    assert "| own, `least_steps` 20000 | 4000 | 42 | 69.86 |  | 92.00 |" in found[marks_of("trainings")]
    ours, own = "70.50 (+0.64; other seed: 69.90)", "90.00 (+20.14; other seeds: 91.00, 89.00)"
    assert found[marks_of("published-rows")] == f"- DRIVE: RPCANet++ S3 69.86, ours {ours}, own recipe {own}."


def test_our_own_recipe_is_that_of_its_file():
    own = Path(trainings.__file__).parents[1] / "configs" / "own.yaml"
    recipe = configuration_from(parser().parse_args([f"--config={own}"])).recipe
    assert (recipe.loss, recipe.least_steps) == (trainings.OWN_LOSS, trainings.OWN_STEPS)


def test_an_ablation_tells_what_each_run_changes_of_the_run_that_they_all_differ_least_from(tmp_path):
    def left(name, iou, loss="soft_iou", seed=42, crop=False):
        record = {
            "network": {"name": "rpcanet++", "stages": 3},
            "data": DATA | {"augment": True, "crop": crop},
            "recipe": {"epochs": 100, "loss": loss, "seed": seed},
            "looks": {},
            "curve": [0.25, iou],
            "machine": {"precision": "bf16-mixed"},
            "seconds": 9,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
        (tmp_path / f"{name}-last.json").write_text(json.dumps({"iou": iou}))

    left("a", 0.6, loss="batch_iou")
    left("b", 0.5)
    left("c", 0.45, seed=43)
    left("d", 0.4, crop=True)
    assert trainings.ablation(trainings.runs_in(tmp_path)) == [
        ["DRIVE", "RPCANet++ S3", "100", "nothing else", "50.00", "", "25.0, 50.0", "9"],
        ["DRIVE", "RPCANet++ S3", "100", "`--data.crop true`", "40.00", "-10.00", "25.0, 40.0", "9"],
        ["DRIVE", "RPCANet++ S3", "100", "`--recipe.loss batch_iou`", "60.00", "+10.00", "25.0, 60.0", "9"],
        ["DRIVE", "RPCANet++ S3", "100", "`--recipe.seed 43`", "45.00", "-5.00", "25.0, 45.0", "9"],
    ]
