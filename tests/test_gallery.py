"""The examples of the gallery run, and each shows a figure with a text for those who cannot see it."""

import runpy
from pathlib import Path

import matplotlib
import pytest
from matplotlib import pyplot

GALLERY = Path(__file__).parents[1] / "docs/gallery"
EXAMPLES = sorted(GALLERY.glob("*/*.py"))
SLOW = (
    "3_train_on_your_folder",
    "5_look_inside",
    "6_export_to_onnx",
    "7_your_own_stage",
    "8_smaller_network",
)
EXTRAS = {"5_sionna_estimator": "sionna.phy", "6_export_to_onnx": "onnxruntime"}

each_example = pytest.mark.parametrize(
    "example",
    [pytest.param(path, marks=[pytest.mark.slow] if path.stem in SLOW else []) for path in EXAMPLES],
    ids=lambda path: path.stem,
)


@each_example
def test_an_example_runs_and_describes_its_figure(example, tmp_path, monkeypatch):
    if example.stem in EXTRAS:
        pytest.importorskip(EXTRAS[example.stem])
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    try:
        runpy.run_path(str(example), run_name="__main__")
        texts = [pyplot.figure(number).get_label() for number in pyplot.get_fignums()]
    finally:
        pyplot.close("all")
    assert texts
    assert all(len(text) > 40 for text in texts)


def test_there_are_at_least_ten():
    assert len(EXAMPLES) >= 10
