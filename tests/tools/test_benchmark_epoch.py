"""The benchmark of whole epochs, on pictures small enough for a CPU."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json

import pytest

from unfoldkit.tools import benchmark
from unfoldkit.tools.benchmarks import epochs


def test_epochs_are_timed_from_start_to_start(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(epochs, "PICTURES", (4, 2))
    monkeypatch.setattr(epochs, "NETWORKS", {"RPCANet": ("rpcanet", 1)})
    file = tmp_path / "epoch.json"
    options = ["--networks", "RPCANet", "--size=32", "--batch=4", "--epochs=4", "--precision=32-true"]
    assert benchmark.main(["epoch", "--device=cpu", *options, "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["network"], row["data"], row["what"], row["idle"]) == ("RPCANet", "synthetic", "epoch", None)
    assert 0 < row["seconds"] < 60
    assert row["caches"] in ("cold", "warm")
    assert row["preparation_seconds"] > 0
    assert row["first_seconds"] > 0
    assert "RPCANet" in capsys.readouterr().out


def test_too_few_epochs_are_refused():
    with pytest.raises(SystemExit, match="--epochs must be at least 4"):
        benchmark.main(["epoch", "--epochs=3"])
