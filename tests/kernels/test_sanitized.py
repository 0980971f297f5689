"""compute-sanitizer finds no race and no access out of bounds in the CUDA C of decompositions and estimators."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from sanitized import ENDED, PARTS

SCRIPT = Path(__file__).parents[1] / "helpers/sanitized.py"
TOOLS = {"racecheck": "racing", "memcheck": "outside"}
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="needs compute-sanitizer"),
    pytest.mark.usefixtures("kernels_compiled"),
]


def watched(tool: str, part: str) -> tuple[int, bool]:
    """What `tool` counts, warnings included, while a part of the script runs, and whether that came to its end."""
    command = ["compute-sanitizer", "--tool", tool, sys.executable, str(SCRIPT), part]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    counted = re.search(r"SUMMARY: (\d+) (?:hazards?|errors?)", said)
    assert counted is not None, said[-2000:]
    return int(counted[1]), ENDED in said


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("tool", TOOLS)
def test_nothing_is_found(tool, part):
    assert watched(tool, part) == (0, True)


@pytest.mark.parametrize(("tool", "faulty"), TOOLS.items())
def test_what_is_wrong_is_found(tool, faulty):
    found, _ = watched(tool, faulty)
    assert found > 0
