"""The package as others get it: built, installed into an empty environment, beside packages of the same names."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import hashlib
import os
import subprocess
import sys
import sysconfig
import tarfile
import time
import venv
import zipfile
from pathlib import Path

import pytest

from unfoldkit.common.console import COMMANDS

ROOT = Path(__file__).parents[2]
TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py") if "__main__" in path.read_text())
CLEAN = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
PREDICTION = """
import torch
from pathlib import Path
from unfoldkit import datasets, kernels, rpcanet, sbl
for package in (datasets, kernels, rpcanet, sbl):
    assert Path(package.__file__).is_relative_to({home!r}), package.__file__
levels = torch.from_numpy(datasets.SyntheticScenes("test", 1, size=64)[0].image)
net = rpcanet.RPCANetPlusPlus(stages=2, channels=4).eval()
rpcanet.save_weights(net, "net.safetensors")
found = rpcanet.decompose(rpcanet.load_weights("net.safetensors"), levels, size=32)
assert found.object.shape == (1, 1, 64, 64)
estimate = sbl.SVDKroSBL()([torch.eye(3), torch.eye(4)], torch.rand(12), 0.1)
assert estimate.mean.isfinite().all()
assert list(Path(datasets.__file__).parent.glob("splits/*.txt"))
"""
BOTH = """
import datasets as theirs, kernels as their_kernels
from unfoldkit import datasets, kernels, rpcanet, sbl
assert theirs.Dataset.from_dict({{"x": [1, 2]}})[1] == {{"x": 2}}
assert callable(their_kernels.get_kernel)
assert theirs.__file__ != datasets.__file__
"""


def run(python, *arguments, folder, **options):
    done = subprocess.run(
        [python, *arguments], capture_output=True, text=True, cwd=folder, env=CLEAN, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(home):
    """Python of an empty environment that sees this one's third-party packages, and nothing of the checkout."""
    venv.create(home, with_pip=True)
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return home / "bin" / "python", packages


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, folder=folder)
    (wheel,), (sdist,) = (folder.glob(kind) for kind in ("*.whl", "*.tar.gz"))
    return wheel, sdist


@pytest.mark.slow
def test_wheel_and_sdist_install_into_an_empty_environment(archives, tmp_path):
    wheel, sdist = archives
    names = zipfile.ZipFile(wheel).namelist()
    assert all(name.startswith("unfoldkit") for name in names)
    assert {"unfoldkit/py.typed", "unfoldkit/tools/configs/sirst.yaml", "unfoldkit/sbl/em/em.c"} <= {*names}
    assert not any("results/" in name for name in names)
    with tarfile.open(sdist) as file:
        held = {name.split("/")[1] for name in file.getnames() if "/" in name}
    assert {"rpcanet", "sbl", "kernels", "datasets", "tools", "tests", "pyproject.toml", "LICENSE"} <= held
    for number, archive in enumerate(archives):
        home = tmp_path / f"environment {number}"
        python, _ = environment(home)
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", archive, folder=tmp_path)
        run(python, "-c", PREDICTION.format(home=str(home)), folder=tmp_path)


@pytest.mark.slow
def test_commands_of_an_installed_wheel(archives, tmp_path):
    """In an empty folder: each command's help within three seconds, a demo, a prediction, a simulation."""
    python, _ = environment(tmp_path / "environment")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", archives[0], folder=tmp_path)
    command, folder = python.with_name("unfoldkit"), tmp_path / "empty"
    folder.mkdir()
    assert "evaluate" in run(command, "--help", folder=folder)
    for name in COMMANDS.values():
        start = time.perf_counter()
        assert f"usage: unfoldkit {name}" in run(command, name, "--help", folder=folder)
        assert time.perf_counter() - start < 3, name
    run(command, "demo", folder=folder)
    scenes, weights = folder / "runs/demo/scenes", folder / "runs/demo/best.safetensors"
    run(command, "predict", f"--weights={weights}", scenes, "--out=predicted", folder=folder)
    assert len(list((folder / "predicted").glob("*_mask.png"))) == 4
    run(command, "simulate", "irs", "--trials=4", "--out=simulated", folder=folder)
    assert (folder / "simulated/results.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("theirs_first", [True, False])
def test_others_datasets_and_kernels_stay_whole(archives, tmp_path, theirs_first):
    """Hugging Face's packages of those names, before or after this one, used together, then left alone."""
    python, packages = environment(tmp_path / "environment")
    theirs = [python, "-m", "pip", "install", "--quiet", "datasets", "kernels"]
    ours = [python, "-m", "pip", "install", "--quiet", "--no-deps", archives[0]]
    for command in (theirs, ours) if theirs_first else (ours, theirs):
        run(*command, folder=tmp_path)
    before = contents(packages)
    assert len(before) > 100
    run(python, "-c", BOTH.format(), folder=tmp_path)
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "unfoldkit", folder=tmp_path)
    assert contents(packages) == before
    run(python, "-c", "import datasets, kernels; datasets.Dataset, kernels.get_kernel", folder=tmp_path)


def contents(packages):
    """The files of Hugging Face's two packages, by their hash."""
    files = [path for name in ("datasets", "kernels") for path in (packages / name).rglob("*.py")]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_help_of_every_tool_comes_before_any_heavy_import():
    assert "train.py" in TOOLS
    code = f"""
import contextlib, io, runpy, sys
for tool in {TOOLS}:
    sys.argv = [tool, "--help"]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        runpy.run_path("tools/" + tool, run_name="__main__")
    assert "usage: " in said.getvalue(), tool
    loaded = {{"torch", "lightning", "cv2", "matplotlib", "scipy"}} & sys.modules.keys()
    assert not loaded, (tool, loaded)
"""
    run(sys.executable, "-c", code, folder=ROOT, timeout=60)


def test_every_tool_is_a_command_and_none_is_long():
    """A file of tools/ parses options, calls a package and prints."""
    documents = {"results_table.py"}
    assert {f"{tool}.py" for tool in COMMANDS} == {*TOOLS} - documents
    lines = {tool: len((ROOT / "tools" / tool).read_text().splitlines()) for tool in TOOLS}
    assert {tool: count for tool, count in lines.items() if count >= 120} == {}
