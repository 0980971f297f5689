"""The API pages: every name of a package's `__all__`, gathered by the room that it is written in."""

from collections.abc import Iterable
from importlib import import_module
from inspect import isclass, isroutine
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def write_pages(app: "Sphinx") -> None:
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    pages = {package: page(package, extra) for package, extra in app.config.api_packages.items()}
    for package, text in pages.items():
        write_changed(folder / f"{package}.rst", text)
    entries = "\n".join(f"   {package}" for package in pages)
    write_changed(folder / "index.rst", f"{title('API', '=')}.. toctree::\n\n{entries}\n")


def write_changed(path: Path, text: str) -> None:
    """An unchanged page keeps its time, so that it is not built again."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def page(package: str, extra: Iterable[str]) -> str:
    """A package's docstring, then a section for each room, and one for what the others speak of."""
    module = import_module(package)
    parts = [title(package, "="), f".. automodule:: {package}\n   :no-members:\n"]
    for room, names in rooms(module).items():
        if room:
            parts.append(title(heading(import_module(f"{package}.{room}")), "-"))
        parts += [directive(f"{package}.{name}", getattr(module, name)) for name in names]
    if extra := list(extra):
        parts.append(title("What these build on", "-"))
        parts += [
            directive(path, getattr(import_module(path.rpartition(".")[0]), path.rpartition(".")[2]))
            for path in extra
        ]
    return "\n".join(parts)


def rooms(module: ModuleType) -> dict[str, list[str]]:
    """The public names of a module by the subpackage that they come from, "" for those of no subpackage."""
    found: dict[str, list[str]] = {}
    for name in public(module):
        source = getattr(getattr(module, name), "__module__", module.__name__)
        inner = source.removeprefix(f"{module.__name__}.").split(".")
        room = inner[0] if len(inner) > 1 and source.startswith(f"{module.__name__}.") else ""
        found.setdefault(room, []).append(name)
    return dict(sorted(found.items()))


def public(module: ModuleType) -> list[str]:
    """`__all__`; of a module without one, its own functions and classes without underscore."""
    names = getattr(module, "__all__", None)
    own = [
        name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
    ]
    return list(names) if names is not None else [name for name in own if not name.startswith("_")]


def heading(room: ModuleType) -> str:
    return (room.__doc__ or room.__name__).splitlines()[0].partition(":")[0].rstrip(".")


def title(text: str, under: str) -> str:
    return f"{text}\n{under * len(text)}\n"


def directive(path: str, value: object) -> str:
    if isclass(value):
        return f".. autoclass:: {path}\n   :members:\n   :special-members: __call__\n"
    return f".. auto{'function' if isroutine(value) else 'data'}:: {path}\n"


def setup(app: "Sphinx") -> dict[str, bool]:
    app.add_config_value("api_packages", {}, "env")
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
