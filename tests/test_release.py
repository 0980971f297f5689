"""What a release states of itself: one version, a citation, and where things are said."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
VERSION = re.search(
    r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE
)[1]
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_citation_has_what_its_format_demands():
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "version"} <= CITATION.keys()
    for work in (CITATION, *CITATION["references"]):
        assert work["title"]
        assert all({"name", "family-names"} & author.keys() for author in work["authors"])
    assert all({"type", "year"} <= work.keys() for work in CITATION["references"])


def test_one_version():
    assert CITATION["version"] == VERSION
    assert f"## [{VERSION}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_changelog_has_its_form():
    """A date or `unreleased` for each version, the kinds of changes in their order."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert all(
        re.match(r"\[\d+\.\d+\.\d+\] - (\d{4}-\d\d-\d\d|unreleased)\n", version) for version in versions
    )
    for version in versions:
        found = re.findall(r"^### (.+)$", version, re.MULTILINE)
        assert found == [kind for kind in KINDS if kind in found]


def test_the_citation_names_the_works_of_the_readme():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert [work["title"] for work in CITATION["references"] if work["title"] not in readme] == []


@pytest.mark.parametrize(
    ("name", "said"),
    [("SECURITY.md", "weights_only=True"), ("CONTRIBUTING.md", "## Deprecation"), ("LICENSE", "MIT License")],
)
def test_what_a_user_looks_for_is_there(name, said):
    assert said in (ROOT / name).read_text(encoding="utf-8")
