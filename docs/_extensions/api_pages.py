"""The API pages: every name of a package's `__all__`, gathered by the room that it is written in."""

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx


ROOT = Path(__file__).parents[2]


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
    parts = [title(package, "="), f".. automodule:: {package}\n   :no-members:\n"]
    for room, names in rooms(package).items():
        if room:
            parts.append(title(heading(f"{package}.{room}"), "-"))
        parts += [directive(f"{package}.{name}", source, name) for name, source in names.items()]
    if extra := list(extra):
        parts.append(title("What these build on", "-"))
        parts += [directive(path, *path.rsplit(".", 1)) for path in extra]
    return "\n".join(parts)


def rooms(package: str) -> dict[str, dict[str, str]]:
    """The public names of a package with the modules they are written in, by subpackage, "" for those of none."""
    found: dict[str, dict[str, str]] = {}
    for name, source in public(package).items():
        inner = source.removeprefix(package).strip(".").split(".")
        found.setdefault(inner[0] if len(inner) > 1 else "", {})[name] = source
    return dict(sorted(found.items()))


def public(package: str) -> dict[str, str]:
    """The public names of a package, and where each is written. Read, not imported: extras may be missing."""
    tree = ast.parse(stub(package).read_text(encoding="utf-8"))
    names, listed = {}, None
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            names |= {alias.asname or alias.name: f"{package}.{node.module}" for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = package
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if getattr(target, "id", "") == "__all__":
                listed = ast.literal_eval(node.value)
            else:
                names[getattr(target, "id", "_")] = package
    listed = [name for name in names if not name.startswith("_")] if listed is None else listed
    return {name: names[name] for name in listed}


def stub(package: str) -> Path:
    """The file that says what a package or module holds."""
    place = ROOT.joinpath(*package.split("."))
    files = (place / "__init__.pyi", place / "__init__.py", place.with_suffix(".py"))
    return next(file for file in files if file.is_file())


def heading(room: str) -> str:
    docstring = ast.get_docstring(ast.parse(stub(room).read_text(encoding="utf-8"))) or room
    return docstring.splitlines()[0].partition(":")[0].rstrip(".")


def title(text: str, under: str) -> str:
    return f"{text}\n{under * len(text)}\n"


def directive(path: str, source: str, name: str) -> str:
    """The directive of a name, by what it is in the module that it is written in."""
    body = ast.parse(stub(source).read_text(encoding="utf-8")).body
    node = next((node for node in body if getattr(node, "name", "") == name), None)
    if isinstance(node, ast.ClassDef):
        return f".. autoclass:: {path}\n   :members:\n   :special-members: __call__\n"
    return f".. auto{'function' if node else 'data'}:: {path}\n"


def setup(app: "Sphinx") -> dict[str, bool]:
    app.add_config_value("api_packages", {}, "env")
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
