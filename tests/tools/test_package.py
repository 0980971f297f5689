"""The package as others get it: built, installed into an empty environment, beside packages of the same names."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = sorted(path.name for path in (ROOT / "tools").glob("*.py") if "__main__" in path.read_text())
CLEAN = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
PREDICTION = """
import torch
from unfoldkit import datasets, kernels, rpcanet, sbl
from pathlib import Path
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
print("works")
"""


@pytest.mark.slow
def test_wheel_and_sdist_install_into_an_empty_environment(tmp_path):
    """Third-party packages are those of this environment; nothing of the checkout is seen."""
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ROOT], check=True, env=CLEAN
    )
    (wheel,), (sdist,) = ((tmp_path / "dist").glob(kind) for kind in ("*.whl", "*.tar.gz"))
    assert all(name.startswith("unfoldkit") for name in zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as file:
        held = {name.split("/")[1] for name in file.getnames() if "/" in name}
    assert {"rpcanet", "sbl", "kernels", "datasets", "tools", "tests", "pyproject.toml", "LICENSE"} <= held
    for number, archive in enumerate((wheel, sdist)):
        home = tmp_path / f"environment {number}"
        venv.create(home, with_pip=True)
        python = home / "bin" / "python"
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--no-deps", archive], check=True, env=CLEAN
        )
        (packages,) = home.glob("lib/python*/site-packages")
        (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
        code = PREDICTION.format(home=str(home))
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=CLEAN)
        assert done.stdout == "works\n", done.stderr


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
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=CLEAN | {"PYTHONPATH": os.pathsep.join((str(ROOT / "tools"), str(ROOT)))},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
