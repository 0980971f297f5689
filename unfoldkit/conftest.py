"""Doctests are collected from every module but those that import a package which is not installed here.

Sionna is an extra, and Triton is there on Linux alone.
"""

import re
from importlib.util import find_spec
from pathlib import Path

ABSENT = [name for name in ("sionna", "triton") if find_spec(name) is None]
IMPORT = re.compile(rf"^(?:import|from) (?:{'|'.join(ABSENT)})\b", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    if not ABSENT or collection_path.suffix != ".py":
        return None
    return IMPORT.search(collection_path.read_text(encoding="utf-8")) is not None or None
