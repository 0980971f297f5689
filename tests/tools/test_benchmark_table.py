"""The tables of docs/results.md of speed are made of the files that benchmark.py left, and of nothing else."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json
from pathlib import Path

from unfoldkit.tools.benchmarks.speed_tables import SUBJECTS, tables
from unfoldkit.tools.benchmarks.tables import RESULTS, marks_of, replaced

DOCUMENT = Path(__file__).parents[2] / "docs/results.md"
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


def test_the_networks_stand_beside_what_their_papers_state(tmp_path):
    row = {"network": "RPCANet", "parameters": 679896, "flops": 88332042240, "seconds": 0.0447}
    row |= {"gpu_seconds": None, "published_iou": {"sirst": 70.37, "sirst_aug": None}}
    (tmp_path / "2026-01-02-family-cpu.json").write_text(json.dumps({"setting": SETTING, "rows": [row]}))
    text = tables("family", tmp_path)
    assert "| IoU as published, `sirst` | IoU as published, `sirst_aug` |" in text
    assert text.endswith("| RPCANet | 679,896 | 88.33 | 44.7 |  | 70.37 |  |")


def test_the_document_is_up_to_date():
    text = DOCUMENT.read_text(encoding="utf-8")
    for subject in SUBJECTS:
        assert replaced(text, tables(subject, RESULTS), *marks_of(subject)) == text
