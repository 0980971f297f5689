"""What tests of commands share."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import sys

import pytest


@pytest.fixture
def run(monkeypatch, capsys):
    """A function that types a command: its exit status, what it says, and what it complains of."""

    def typed(tool, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{tool.__name__.rpartition('.')[2]}.py", *map(str, arguments)])
        status = 0
        try:
            tool.main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return typed
