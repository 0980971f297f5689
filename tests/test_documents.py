"""README.md and docs/: links lead somewhere, code is code, and a newcomer's page stays one page."""

import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from unittest.mock import patch

import pytest

from unfoldkit.common.console import COMMANDS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "auto_gallery" not in path.parts)
DOCUMENTS = [README, *(ROOT / f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")), *PAGES]
MOST_LINES = 150
FENCE = re.compile(r"^```([\w{}-]*).*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:(?<!from )\bunfoldkit ([a-z][a-z-]*)|\btools/([a-z_]+)\.py)((?: +[^\s`;#]+)*)")
SUBCOMMANDS = {
    "simulate": ("irs", "synthetic", "ofdm"),
    "trace_estimate": ("irs", "synthetic"),
    "benchmark": (
        "kernels",
        "networks",
        "epoch",
        "estimators",
        "ofdm",
        "surface",
        "family",
        "compression",
        "classical",
    ),
}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def prose(document: Path) -> str:
    """What is no code, neither fenced nor indented nor between backticks."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    return re.sub(r"`[^`\n]*`", lambda code: code[0].replace("[", "").replace("]", ""), text)


def code(document: Path) -> list[str]:
    text = document.read_text(encoding="utf-8")
    return [body for language, body in FENCE.findall(text) if language == "python"]


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#{1,6} (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_every_relative_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    links = [link for link in LINK.findall(prose(document)) if not link.startswith("https://")]
    broken = []
    for link in links:
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_a_broken_anchor_is_seen() -> None:
    assert "official-weights-evaluated" in anchors(ROOT / "docs/results.md")
    assert "1000-draws" in anchors(ROOT / "docs/results.md")
    assert "no-such-heading" not in anchors(ROOT / "docs/results.md")


def test_every_page_of_docs_is_reached_from_the_readme() -> None:
    """Those of docs/project are the site's copies of files that the README names itself."""
    reached, new = set(), {README}
    while new:
        reached |= new
        links = {
            (page.parent / link.partition("#")[0]).resolve()
            for page in new
            for link in LINK.findall(page.read_text(encoding="utf-8"))
        }
        new = {path for path in links if path.suffix == ".md"} - reached
    assert [page for page in PAGES if page not in reached and page.parent.name != "project"] == []


def test_every_public_name_is_on_an_api_page() -> None:
    """The pages are made of `__all__`, room by room; what a room does not take would be lost."""
    sys.path.insert(0, str(ROOT / "docs/_extensions"))
    pages = import_module("api_pages")
    for package in ("rpcanet", "sbl", "kernels", "datasets"):
        module = import_module(f"unfoldkit.{package}")
        page = pages.page(f"unfoldkit.{package}", [])
        listed = re.findall(rf"^\.\. auto\w+:: unfoldkit\.{package}\.(\w+)$", page, re.MULTILINE)
        assert sorted(listed) == sorted(module.__all__)


def test_the_readme_is_one_page() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def command_lines(document: Path) -> Iterator[tuple[str, list[str]]]:
    """The tool and the arguments of every command line in a document's code."""
    text = FENCE.sub("", document.read_text(encoding="utf-8")).replace("\\\n", " ")
    tools = {name: tool for tool, name in COMMANDS.items()}
    indented = re.findall(r"^ {4}(.*)$", text, re.MULTILINE)
    for line in [*indented, *re.findall(r"`([^`\n]+)`", text)]:
        for command, tool, arguments in COMMAND.findall(line):
            yield tool or tools.get(command, command), arguments.split()


@cache
def options_of(tool: str, *subcommand: str) -> set[str]:
    """The options that a command's help names."""
    said: list[str] = []
    with patch.object(sys, "argv", [tool, *subcommand, "--help"]), patch.object(sys, "stdout") as stdout:
        stdout.write = said.append
        stdout.isatty.return_value = False
        with pytest.raises(SystemExit):
            import_module(f"unfoldkit.tools.{tool}").main()
    return set(re.findall(r"--[\w.-]+", "".join(said)))


@each_document
def test_every_command_and_its_options_are_there(document: Path) -> None:
    unknown = []
    for tool, arguments in command_lines(document):
        if not (ROOT / f"tools/{tool}.py").is_file():
            unknown.append(tool)
            continue
        if not any(word.startswith("--") for word in arguments):
            continue
        chosen = [word for word in arguments if word in SUBCOMMANDS.get(tool, ())][:1]
        if tool in SUBCOMMANDS and not chosen:
            unknown.append(f"{tool} {' '.join(arguments)}")
            continue
        given = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        unknown += [f"{tool} {option}" for option in given - options_of(tool, *chosen)]
    assert not unknown


@each_document
def test_the_python_examples_run(document: Path) -> None:
    names: dict[str, object] = {"__name__": document.stem}
    for block in code(document):
        if "from sionna" in block:
            pytest.importorskip("sionna.phy", reason="needs the extra unfoldkit[sionna]")
        exec(compile(block, document.name, "exec"), names)


def test_each_half_has_an_example_in_the_readme() -> None:
    examples = "\n".join(code(README))
    assert "rpcanet.decompose(" in examples
    assert "PCKroSBL(" in examples
