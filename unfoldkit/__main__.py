"""The command line of an installed unfoldkit: one command for each file of tools/, with its options.

unfoldkit COMMAND --help
"""

import ast
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from unfoldkit import __version__
from unfoldkit.common.console import COMMAND, COMMANDS

TOOL_OF = {command: tool for tool, command in COMMANDS.items()}


def main() -> None:
    """Run the command that the first argument names, as `python tools/COMMAND.py` runs it."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(overview())
    elif name == "--version":
        print(__version__)
    elif name not in TOOL_OF:
        sys.exit(f"unfoldkit: error: no command {name!r}; there are {', '.join(TOOL_OF)}")
    else:
        sys.argv = [COMMAND + name, *arguments]
        import_module(f"unfoldkit.tools.{TOOL_OF[name]}").main()


def overview() -> str:
    """Every command with the first line of its description."""
    width = max(map(len, TOOL_OF))
    lines = [f"  {command:{width}}  {first_line(tool)}" for command, tool in TOOL_OF.items()]
    return "\n".join(
        ["usage: unfoldkit COMMAND [OPTIONS]", "", *lines, "", "unfoldkit COMMAND --help explains each."]
    )


def first_line(tool: str) -> str:
    """Read, not imported, so that an overview costs nothing."""
    spec = find_spec(f"unfoldkit.tools.{tool}")
    assert spec is not None
    assert spec.origin is not None
    documentation = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
    return (documentation or "").splitlines()[0]


if __name__ == "__main__":
    main()
