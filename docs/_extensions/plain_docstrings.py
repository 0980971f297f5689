"""Docstrings of plain text, with `code`, equations set in and `name: text` lines, as reST."""

import re

from sphinx.application import Sphinx

SECTION = re.compile(r"(Args|Returns|Raises|Yields|Example|Examples|Note):$")
ITEM = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): ")
SEVERAL_ITEMS = re.compile(r"(?<=\S)  +(?=[a-z_]\w*(?:, [a-z_]\w*)*: )")


def convert(lines: list[str]) -> list[str]:
    """The lines of a docstring as reST that napoleon reads on."""
    out: list[str] = []
    for block in paragraphs(lines):
        first = block[0]
        if not first.strip() or first.lstrip().startswith(">>>"):
            out += block
        elif first.startswith(" ") and not in_section(out):
            out += [*quoting(out), *block, ""]
        elif ITEM.match(first):
            out += [*items(block), ""]
        else:
            out += map(escaped, block)
    return out


def paragraphs(lines: list[str]) -> list[list[str]]:
    """Runs of lines that are blank, doctests, set in, or plain."""
    blocks: list[list[str]] = []
    kinds: list[str] = []
    for line in lines:
        kind = kind_of(line, kinds[-1] if kinds else "")
        if not kinds or kind != kinds[-1] or kind == "blank":
            blocks.append([])
            kinds.append(kind)
        blocks[-1].append(line)
    return blocks


def kind_of(line: str, before: str) -> str:
    stripped = line.strip()
    if not stripped:
        return "blank"
    if stripped.startswith(">>>") or before == "doctest":
        return "doctest"
    if before == "items" or (before != "plain" and ITEM.match(line)):
        return "items"
    return "set in" if line.startswith(" ") else "plain"


def in_section(out: list[str]) -> bool:
    """Whether the last line that is not set in opens a section of napoleon's."""
    return any(SECTION.match(line) for line in [line for line in out if line and line[0] != " "][-1:])


def quoting(out: list[str]) -> list[str]:
    """What makes the lines that follow a literal block."""
    return ["", "::", ""] if not out or out[-1].strip() else ["::", ""]


def items(block: list[str]) -> list[str]:
    """`name: text` lines as a list; a line of several becomes several."""
    out = []
    for line in SEVERAL_ITEMS.sub("\n", "\n".join(block)).split("\n"):
        name = ITEM.match(line)
        out.append(
            f"- **{name[1]}**: {escaped(line[name.end() :])}" if name else f"  {escaped(line.strip())}"
        )
    return out


def escaped(line: str) -> str:
    """`code` in the double backticks of reST, and no other character of it with a meaning."""
    parts = line.split("`")
    if len(parts) % 2 == 0:  # code that goes on in the next line
        return re.sub(r"([*|_\\`])", r"\\\1", line)
    parts[::2] = [re.sub(r"([*|_\\])", r"\\\1", text) for text in parts[::2]]
    parts[1::2] = [f"``{code}``" for code in parts[1::2]]
    return "".join(parts)


def process(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    lines[:] = convert(lines)


def signature(
    app: Sphinx,
    what: str,
    name: str,
    thing: object,
    options: object,
    arguments: str | None,
    returns: str | None,
) -> tuple[str | None, str | None]:
    """A default that is made anew each time reads as such, and lets the signature be parsed."""
    return arguments and arguments.replace("<factory>", "..."), returns


def skip(app: Sphinx, what: str, name: str, member: object, skipped: bool, options: object) -> bool | None:
    """The fields of named tuples say what they are in the class's docstring."""
    return True if (getattr(member, "__doc__", "") or "").startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
