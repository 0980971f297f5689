"""Same seed, same machine, same bytes; another seed, other numbers."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json

from unfoldkit import sbl
from unfoldkit.datasets import SyntheticScenes
from unfoldkit.rpcanet import train
from unfoldkit.tools import simulate, train_estimator
from unfoldkit.tools.train import configuration_from, parser

TRAINING = [
    *("--network.stages=1", "--network.channels=4", "--data.workers=0", "--machine.accelerator=cpu"),
    *("--data.size=32", "--data.train_count=4", "--data.validation_count=2", "--data.batch_size=2"),
    "--recipe.epochs=1",
]
ESTIMATOR = [
    *("--system.bs=4", "--system.ms=3", "--system.irs=8", "--system.grid=6", "--system.pilots=2"),
    *("--system.patterns=3", "--estimator.iterations=2", "--machine.accelerator=cpu", "--recipe.steps=2"),
    *(
        "--recipe.batch_size=8",
        "--recipe.validation_trials=4",
        "--recipe.validation_snr=[5]",
        "--recipe.epochs=1",
    ),
]


def tensors(path):
    """The bytes of a safetensors file behind its header, which states the seed."""
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little") :]


def same_twice_and_other_with_another_seed(run, tmp_path):
    """run(out, seed) gives what must be the same."""
    first, second, other = (run(tmp_path / name, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert first == second
    assert first != other


def test_training(tmp_path):
    def run(out, seed):
        train(configuration_from(parser().parse_args([*TRAINING, f"--recipe.seed={seed}"])), out)
        return tensors(out / "last.safetensors")

    same_twice_and_other_with_another_seed(run, tmp_path)


def test_training_of_an_estimator(tmp_path):
    def run(out, seed):
        options = train_estimator.parser().parse_args([*ESTIMATOR, f"--recipe.seed={seed}"])
        sbl.train_estimator(train_estimator.configuration_from(options), out)
        return tensors(out / "last.safetensors")

    same_twice_and_other_with_another_seed(run, tmp_path)


def test_simulation(tmp_path):
    def run(out, seed):
        small = (
            "--rows",
            "4,5",
            "--columns",
            "6,6",
            "--sparsity",
            "2",
            "--snr",
            "15",
            "--estimators",
            "SVD,OLS",
        )
        simulate.main(
            ["synthetic", *small, "--trials", "4", "--workers", "1", "--seed", str(seed), "--out", str(out)]
        )
        rows = json.loads((out / "results.json").read_text())["points"]
        return [{key: value for key, value in row.items() if not key.startswith("seconds")} for row in rows]

    same_twice_and_other_with_another_seed(run, tmp_path)


def test_generator(tmp_path):
    def run(out, seed):
        scenes = SyntheticScenes("train", count=5, size=48, seed=seed)
        return b"".join(scenes[index].image.tobytes() + scenes[index].mask.tobytes() for index in range(5))

    same_twice_and_other_with_another_seed(run, tmp_path)
