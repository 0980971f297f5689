"""The README's tables of speed are made of the files that benchmark.py left, and of nothing else."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json
from pathlib import Path

from unfoldkit.tools.benchmarks.speed_tables import SUBJECTS, marks, tables
from unfoldkit.tools.benchmarks.tables import RESULTS, replaced

README = Path(__file__).parents[2] / "README.md"
SETTING = {"date": "2026-01-02", "torch": "2.0", "threads": 2, "device": "cpu"}


def test_a_file_is_a_table_with_its_device_version_and_date(tmp_path):
    row = {"name": "irs", "value": 14.51, "unit": "s", "bound": 20}
    content = {"setting": SETTING, "rows": [row, row | {"name": "huge", "bound": None}]}
    (tmp_path / "2026-01-02-estimators-cpu.json").write_text(json.dumps(content))
    (tmp_path / "2026-01-02-kernels-cpu.json").write_text("of another subject")
    text = tables("estimators", tmp_path)
    assert text.startswith(
        "CPU, 2 threads, torch 2.0, 2026-01-02: `2026-01-02-estimators-cpu.json`\n\n| case |"
    )
    content["setting"] |= {"processor": "Example 1"}
    (tmp_path / "2026-01-02-estimators-cpu.json").write_text(json.dumps(content))
    assert tables("estimators", tmp_path).startswith("Example 1, 2 threads, torch 2.0")
    assert text.endswith("| irs | 14.5 s | 20 |\n| huge | 14.5 s |  |")


def test_the_readme_is_up_to_date():
    text = README.read_text(encoding="utf-8")
    for subject in SUBJECTS:
        assert replaced(text, tables(subject, RESULTS), *marks(subject)) == text
