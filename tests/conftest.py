"""Shared fixtures: the reference pictures, weights and results that live beside a checkout."""

import os
from contextlib import suppress
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


@pytest.fixture(scope="session")
def kernels_compiled(tmp_path_factory):
    """The CUDA C of the tests on a GPU is in the cache; of several processes the first compiles it."""
    import torch
    from compiled_kernels import build_all
    from filelock import FileLock

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    done = tmp_path_factory.getbasetemp().parent / f"compiled-{run}"
    with FileLock(f"{done}.lock"):
        if not done.exists():
            with suppress(OSError):  # there is no NVRTC
                build_all("sm_{}{}".format(*torch.cuda.get_device_capability()))
            done.touch()
