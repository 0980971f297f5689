"""The published numbers are those of the published tables, each said with its protocol and source."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import json
import re

import pytest

from unfoldkit.datasets import PUBLISHED
from unfoldkit.tools.tables.markdown import RESULTS
from unfoldkit.tools.tables.segmentation import COLUMNS, stated

STATED = json.loads((RESULTS / "published.json").read_text(encoding="utf-8"))
NAMES = {data.title: name for name, data in PUBLISHED.items()}
ORDER = {
    "Infrared": ("iou", "f1", "pd", "fa"),
    "Vessels": ("accuracy", "sensitivity", "precision", "auc", "f1", "iou"),
    "Defects": ("smeasure", "mae", "iou", "f1"),
}


def tables(text):
    """(heading, column titles, rows) of each table of the page."""
    for heading, body in re.findall(r"^(\w+)[^\n]*\n((?:\|[^\n]*\n)+)", text, re.MULTILINE):
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in body.splitlines()]
        yield heading, lines[0], lines[2:]


def number(text, column, row):
    """In the file's units: AUC as a fraction, Fa in 1e-5."""
    scale = {"auc": 0.01}.get(column, 0.1 if column == "fa" and "1e-6" in row else 1)
    return pytest.approx(float(text) * scale)


@pytest.mark.reference
def test_every_number_of_the_published_tables(reference_file):
    seen = set()
    for heading, titles, rows in tables(reference_file("spec/published.md").read_text(encoding="utf-8")):
        for row, *cells in rows:
            name = row.partition(" (")[0]
            for title, cell in zip(titles[1:], cells, strict=True):
                if title not in NAMES or not cell:
                    continue
                values = STATED[NAMES[title]][name]
                expected = {
                    column: number(text, column, row)
                    for column, text in zip(ORDER[heading], cell.split(" / "), strict=False)
                    if text != "-"
                }
                assert {column: values[column] for column in ORDER[heading] if column in values} == expected
                seen.add((NAMES[title], name))
    assert seen == {(data, name) for data in PUBLISHED for name in STATED[data]}


@pytest.mark.reference
def test_parameters_are_the_published_ones(reference_file):
    (_, titles, rows), *_ = tables(reference_file("spec/published.md").read_text(encoding="utf-8"))
    for row, *cells in rows:
        name, stated_at = row.partition(" (")[0], iter(cells[-1].split(" / ") * len(titles))
        for title, cell in zip(titles[1:-1], cells, strict=False):
            if cell:
                assert STATED[NAMES[title]][name]["parameters"] == float(next(stated_at))


@pytest.mark.parametrize("data", PUBLISHED)
def test_every_row_says_protocol_and_source_and_makes_a_row_of_the_page(data):
    for row in STATED[data].values():
        assert row["protocol"] == PUBLISHED[data].protocol
        assert row["source"] in STATED["sources"]
    columns = COLUMNS[PUBLISHED[data].protocol]
    for (name, row), cells in zip(STATED[data].items(), stated(STATED[data], columns), strict=True):
        assert cells[0] == f"{name}, as published"
        assert cells[1] == f"{row['parameters']:.3f}"
        assert cells[3:-2] == [f"{row[c]:g}" if c in row else "" for c in columns]


def test_best_of_test_and_binary_iou_are_said():
    assert "best of about 1,100 looks at the test set" in STATED["sources"]["rpcanet++"]
    assert "binary" in STATED["notes"]["neu_seg"]
