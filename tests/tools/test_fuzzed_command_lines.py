"""Any options end in a result or in one line that says what was wrong, with status 2; never in a traceback."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import contextlib
import io
import sys
from importlib import import_module

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfoldkit import rpcanet

FEW, MANY = 3, 100  # cases a tool
VALUES = [
    "",
    "-1",
    "0",
    "1",
    "3",
    "x",
    "nan",
    "1.5",
    "4,5",
    "1e-3",
    "2x2",
    "true",
    "null",
    "[]",
    "{}",
    "missing",
]
TINY = ["--network.stages=1", "--network.channels=4", "--data.size=32", "--data.train_count=2"]
TINY += ["--data.validation_count=1", "--data.batch_size=2", "--data.workers=0", "--recipe.epochs=1"]
TINY += ["--machine.accelerator=cpu"]
CHANNELS = ["--recipe.epochs=1", "--recipe.steps=1", "--recipe.batch_size=2", "--estimator.iterations=1"]
CHANNELS += ["--recipe.validation_trials=1", "--recipe.validation_snr=[10]", "--machine.accelerator=cpu"]
PROBLEM = ["synthetic", "--rows=3,4", "--columns=4,4", "--sparsity=1", "--snr=10"]
# A command that works, and options that are set to anything on top of it. FOLDER is replaced.
COMMANDS = {
    "train": (
        [*TINY, "--out=FOLDER/run"],
        ["network.name", "network.stages", "network.channels", "data.name"],
    ),
    "train_estimator": (
        [*CHANNELS, "--out=FOLDER/run"],
        ["estimator.m_step", "system.paths", "system.spread"],
    ),
    "evaluate": (
        ["--weights=FOLDER/net.safetensors", "--dataset=folder", "--root=FOLDER/data", "--split=test"],
        ["weights", "method", "dataset", "root", "split", "size", "tile", "protocol", "batch_size", "json"],
    ),
    "predict": (
        ["FOLDER/data/test/images", "--weights=FOLDER/net.safetensors", "--out=FOLDER/predicted"],
        ["weights", "method", "size", "tile", "threshold", "precision", "device", "block"],
    ),
    "interpret": (
        ["--weights=FOLDER/net.safetensors", "--images=FOLDER/data/test/images", "--out=FOLDER/inside"],
        ["weights", "method", "size", "names", "show", "batch_size", "device"],
    ),
    "export": (
        ["--weights=FOLDER/net.safetensors", "--format=safetensors", "--out=FOLDER/copy.safetensors"],
        ["weights", "pictures", "out"],
    ),
    "compress": (
        ["--weights=FOLDER/net.safetensors", "--size=0.9", "--out=FOLDER/small.safetensors"],
        ["weights", "method", "size", "pictures", "count"],
    ),
    "prepare_data": (["folder", "--root=FOLDER/data"], ["root"]),
    "simulate": (
        [*PROBLEM, "--estimators=SVD,OLS", "--trials=2", "--workers=1", "--out=FOLDER/simulated"],
        ["estimators", "trials", "snr", "seed", "rows", "columns", "sparsity", "first_rows", "known_noise"],
    ),
    "trace_estimate": (
        [*PROBLEM, "--estimators=SVD", "--out=FOLDER/trace"],
        ["estimators", "snr", "trial", "seed", "rows", "columns", "sparsity", "known_noise"],
    ),
    "compare_backgrounds": (
        ["FOLDER/net.safetensors", "--dataset=folder", "--root=FOLDER/data"],
        ["dataset", "root", "count"],
    ),
}
COMMANDS["train"][1].extend(
    ["data.size", "data.batch_size", "data.std", "data.crop", "data.validation_split"]
)
COMMANDS["train"][1].extend(["recipe.epochs", "recipe.learning_rate", "recipe.protocol", "recipe.seed"])
COMMANDS["train"][1].extend(["recipe.validate_every", "machine.precision", "machine.accelerator", "config"])
COMMANDS["train_estimator"][1].extend(["system.pilots", "system.irs", "recipe.snr", "recipe.robustness"])
COMMANDS["train_estimator"][1].extend(["recipe.learning_rate", "recipe.fixed", "estimator.neighbours"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights, and a small data set with a test split."""
    root = tmp_path_factory.mktemp("fuzz")
    torch.manual_seed(0)
    rpcanet.save_weights(rpcanet.build("rpcanet", stages=1, channels=2), root / "net.safetensors")
    for kind in ("images", "masks"):
        (root / "data/test" / kind).mkdir(parents=True)
        levels = np.zeros((12, 16), np.uint8)
        levels[4:7, 5:9] = 255
        for name in "ab":
            cv2.imwrite(str(root / "data/test" / kind / f"{name}.png"), levels)
    return root


def run(tool, arguments):
    """Exit status and what was said; whatever else is raised goes through."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", [f"{tool}.py", *arguments])
        try:
            import_module(f"unfoldkit.tools.{tool}").main()
        except SystemExit as ended:
            return ended.code or 0, said.getvalue()
    return 0, said.getvalue()


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("tool", COMMANDS)
def test_any_options_end_in_a_result_or_in_a_line(tool, count, folder, tmp_path):
    base, options = COMMANDS[tool]
    cases = iter(range(10**6))

    @settings(max_examples=count, derandomize=True, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from([*options, "unknown"]), st.sampled_from(VALUES)), max_size=2))
    def ends_well(changes):
        here = tmp_path / str(next(cases))
        here.mkdir()
        for made in ("net.safetensors", "data"):
            (here / made).symlink_to(folder / made)
        arguments = [part.replace("FOLDER", str(here)) for part in base]
        status, said = run(tool, [*arguments, *(f"--{name}={value}" for name, value in changes)])
        assert status in (0, 2), said
        if status == 2:
            assert "error: " in said
            assert "Traceback" not in said

    with contextlib.chdir(tmp_path) if hasattr(contextlib, "chdir") else contextlib.nullcontext():
        ends_well()
