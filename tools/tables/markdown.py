"""Markdown tables of results, and how they get between the marks of a document."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unfoldkit.common.console import described_parser, one_line_errors
from unfoldkit.common.files import write_whole

RESULTS = Path(__file__).parents[1] / "results"

Row = list[str]
Marks = tuple[str, str]


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def line(cells: Row) -> str:
    return "| " + " | ".join(cells) + " |"


def markdown(header: Row, rows: list[Row]) -> str:
    """A table of Markdown."""
    return "\n".join(map(line, [header, ["---"] * len(header), *rows]))


def marks_of(name: str) -> Marks:
    """The two marks of a document between which what is called `name` is written."""
    return f"<!-- {name}: tools/results_table.py -->", f"<!-- end of {name} -->"


def replaced(text: str, inside: str, begin: str, end: str) -> str:
    """`text` with `inside` between the two marks; raises ValueError where they are missing."""
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"expected the marks {begin!r} and {end!r} once each")
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{inside}\n\n{end}{rest.split(end)[1]}"


def publish(program: str, description: str | None, inside: Callable[[Path], dict[Marks, str]]) -> None:
    """The command line that prints the tables `inside` a folder of results, or writes them between their marks."""
    parser = described_parser(program, description)
    parser.add_argument("--results", type=str, default=str(RESULTS), help="folder of the JSON files")
    parser.add_argument("--write", type=str, help="file whose tables are replaced, such as docs/results.md")
    options = parser.parse_args()
    with one_line_errors(program):
        found = inside(Path(options.results))
        if options.write is None:
            print("\n\n".join(found.values()))
            return
        path = Path(options.write)
        write_whole(path, filled(path.read_text(encoding="utf-8"), found))


def filled(text: str, inside: dict[Marks, str]) -> str:
    """`text` with what belongs between each of its marks; raises ValueError where it has none of them."""
    if not any(begin in text for begin, _ in inside):
        raise ValueError(f"expected one of the marks {', '.join(begin for begin, _ in inside)}")
    for marks, part in inside.items():
        if marks[0] in text:
            text = replaced(text, part, *marks)
    return text
