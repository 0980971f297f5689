"""Shared fixtures: the reference pictures, weights and results that live beside a checkout."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

REFERENCE = Path(__file__).resolve().parents[2] / "shared"

# No verdict of a property test depends on how busy the machine is.
settings.register_profile(
    "project", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("project")


@pytest.fixture
def reference_file():
    """A function from a path below ../shared to the file there; skips the test where it is missing."""

    def find(relative: str) -> Path:
        path = REFERENCE / relative
        if not path.exists():
            pytest.skip(f"needs the reference data ../shared/{relative}")
        return path

    return find
