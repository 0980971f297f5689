"""The tables of docs/results.md are made of JSON files, and of nothing else."""

import json
import re
from pathlib import Path

import pytest

from unfoldkit.datasets import PUBLISHED
from unfoldkit.tools.tables.channels import both
from unfoldkit.tools.tables.markdown import RESULTS, filled, replaced
from unfoldkit.tools.tables.records import highlights
from unfoldkit.tools.tables.segmentation import MARKS, collected, everything

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"(?<![\w.])(?=(?:\.?\d){3})\d*\.\d+(?![\w.]*\d)")
DOCUMENTS = [ROOT / "README.md", ROOT / "docs/results.md", ROOT / "docs/segmentation/weights.md"]


def result(**changes):
    settings = {"dataset": "sirst", "weights": None, "method": "ipi", "root": "/data", "split": "test"}
    values = {"iou": 0.421, "niou": None, "f1": 0.5, "pd": 0.9, "fa": 2.7e-5, "auc": 0.99}
    return {
        **values,
        "seconds": 12.3,
        "network": changes.pop("network", None),
        "settings": settings | {"size": 256} | changes,
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "published.json").write_text((RESULTS / "published.json").read_text())

    def with_results(*results):
        for index, content in enumerate(results):
            (tmp_path / f"{index}.json").write_text(json.dumps(content))
        return collected(tmp_path)

    return with_results


def test_a_result_is_a_row_with_its_command(folder):
    text = folder(result())
    assert (
        "| IPI |  | 256 | 42.10 | undefined | 50.00 | 90.00 | 2.70 | 0.9900 | 12 | "
        "`tools/evaluate.py --method ipi --dataset sirst --root DIR` |"
    ) in text
    assert text.count("| IPI |  | 256") == 1


def test_a_network_trained_by_a_recipe_names_both_commands(folder):
    training = {"data": {"size": 128}, "recipe": {"epochs": 24}}
    network = {"name": "rpcanet", "stages": 3, "channels": 8, "training": training}
    weights = "runs/sirst_small/best.safetensors"
    text = folder(result(weights=weights, method=None, size=128, network=network))
    assert "| RPCANet of 3 stages and 8 channels, 24 epochs | 0.023 | 128 |" in text
    assert (
        "`tools/train.py --config tools/configs/sirst_small.yaml --data.root DIR --out runs/sirst_small; "
        "tools/evaluate.py --weights runs/sirst_small/best.safetensors --dataset sirst --root DIR`"
    ) in text


def test_what_was_not_run_is_one_line_a_data_set(folder):
    text = folder(result())
    for data in PUBLISHED.values():
        assert f"### {data.title}\n" in text
    assert text.count("Not run here:") == len(PUBLISHED)
    assert "PCP, PSSV, WNNM, PSTNN (`tools/evaluate.py --method NAME --dataset sirst --root DIR`)" in text
    assert (
        "RPCANet++ S3, S6, S9 by the whole recipe (`tools/train.py --config tools/configs/drive.yaml" in text
    )
    assert "| IPI |" not in text.split("### NUDT-SIRST")[1]


def test_published_numbers_are_those_of_the_papers(folder):
    text = folder(*(result(dataset=name) for name in ("sirst", "neu_seg", "drive")))
    assert "| RPCANet++ S6, as published | 2.915 |  | 74.76 |  | 85.47 | 100 | 10.77 |  |  |  |" in text
    assert "| RPCANet++ S9, as published | 4.396 |  | 86.84 | 0.0276 | 80.1 | 88.95 |  |  |" in text
    assert (
        "| RPCANet, as published | 0.680 |  | 96.87 | 82.81 | 81.91 | 0.9756 | 82.15 | 69.74 |  |  |" in text
    )
    assert text.count("best of about 1,100 looks at the test set") == 1


def test_a_data_set_without_a_result_makes_no_table(folder):
    text = folder(result())
    assert "IoU as published: RPCANet 69.74, RPCANet++ S3 69.86, RPCANet++ S6 70.35" in text
    assert "|" not in text.split("#### DRIVE")[1]


def test_only_what_lies_between_the_marks_is_replaced():
    begin, end = MARKS
    assert replaced(f"a {begin} old {end} b", "new", *MARKS) == f"a {begin}\n\nnew\n\n{end} b"
    with pytest.raises(ValueError, match="expected the marks"):
        replaced("a b", "new", *MARKS)


def test_the_documents_are_up_to_date():
    made = everything(RESULTS)
    texts = [path.read_text(encoding="utf-8") for path in DOCUMENTS]
    assert [filled(text, made) == text for text in texts] == [True] * len(texts)
    assert [begin for begin, _ in made if not any(begin in text for text in texts)] == []


def test_no_number_of_a_table_stands_in_prose_too():
    """One of at least three digits, which no number is by chance."""
    made = everything(RESULTS)
    tabled = {number for part in made.values() for number in NUMBER.findall(part)}
    repeated = {}
    for path in DOCUMENTS:
        prose = filled(path.read_text(encoding="utf-8"), dict.fromkeys(made, ""))
        prose = re.sub(r"`[^`]*`|\]\([^)]*\)|^ {4}.*$", "", prose, flags=re.MULTILINE)
        repeated[path.name] = tabled.intersection(NUMBER.findall(prose))
    assert repeated == {path.name: set() for path in DOCUMENTS}


def test_a_document_without_marks_is_refused():
    with pytest.raises(ValueError, match="expected one of the marks"):
        filled("nothing", highlights(RESULTS))


def test_a_metric_stands_with_its_error_in_both_forms():
    forms = {
        form: {("SVD", 4.0): {"nmse": value, "nmse_standard_error": 0.02}}
        for form, value in (("default", 0.1), ("published", 0.4))
    }
    table = both(forms, "nmse")
    assert "| SVD-KroSBL | default | 0.1000 ± 0.0200 |\n|  | published | 0.4000 ± 0.0200 |" in table
