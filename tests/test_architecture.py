"""Arrows between rooms run one way, and a room holds what a reader can take in at a glance."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What each package may import of this project, beside itself and the common room.
ALLOWED = {
    "kernels": set(),
    "datasets": {"kernels"},
    "rpcanet": {"kernels", "datasets"},
    "sbl": {"kernels"},
    "tools": {"kernels", "datasets", "rpcanet", "sbl"},
}
MOST_LINES, MOST_FILES = 400, 16


def imported(package: str) -> Iterator[tuple[Path, str]]:
    """Every file of a package with every name of unfoldkit that it imports, relative imports resolved."""
    for path in [*(ROOT / package).rglob("*.py"), *(ROOT / package).rglob("*.pyi")]:
        parts = path.relative_to(ROOT).parts[:-1]
        inside = [*parts] if parts[0] == "unfoldkit" else ["unfoldkit", *parts]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = inside[: len(inside) + 1 - node.level] if node.level else []
                module = ".".join([*start, *([node.module] if node.module else [])])
                names = [f"{module}.{alias.name}" for alias in node.names]
            else:
                continue
            yield from ((path, name) for name in names if name.startswith("unfoldkit."))


@pytest.mark.parametrize("package", ALLOWED)
def test_arrows_run_one_way(package: str) -> None:
    allowed = ALLOWED[package] | {package, "common", "__version__"}
    wrong = [(str(path), name) for path, name in imported(package) if name.split(".")[1] not in allowed]
    assert not wrong


def test_the_common_room_imports_no_package() -> None:
    names = {name.split(".")[1] for _, name in imported("unfoldkit/common")}
    assert names <= {"common", "__version__"}


def test_nothing_is_imported_by_an_old_top_level_name() -> None:
    for path in (
        path for room in (*ALLOWED, "unfoldkit", "tests", "docs") for path in (ROOT / room).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            assert not {module.split(".")[0] for module in modules} & (ALLOWED.keys() - {"tools"}), path


def test_rooms_are_small() -> None:
    for package in (*ALLOWED, "unfoldkit/common"):
        folders = [path for path in [ROOT / package, *(ROOT / package).rglob("*")] if path.is_dir()]
        for folder in folders:
            files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
            assert len(files) <= MOST_FILES, folder


def test_files_are_short() -> None:
    for package in (*ALLOWED, "unfoldkit/common", "tests"):
        for ending in ("py", "c", "h"):
            for path in (ROOT / package).rglob(f"*.{ending}"):
                assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES, path
