"""Looking inside networks and classical methods from the command line."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.io import loadmat
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unfoldkit import rpcanet
from unfoldkit.rpcanet import Interpretation, interpret
from unfoldkit.rpcanet.inside.interpret import batches, chosen, pictures_of, subject_of
from unfoldkit.tools import interpret as command

ROOT = Path(__file__).parents[2]
MEASURES = {"spectrum", "effective_rank", "energy", "sparsity", "fidelity"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, shape in (("a", (40, 50)), ("b", (32, 32)), ("c", (64, 48))):
        cv2.imwrite(str(folder / f"{name}.png"), rng.integers(0, 255, shape, dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def inside(tmp_path_factory, pictures):
    """A look into an RPCANet++ of two stages."""
    out = tmp_path_factory.mktemp("inside")
    torch.manual_seed(0)
    net = rpcanet.build("rpcanet++", stages=2, channels=4, mean=90.0, std=40.0)
    rpcanet.save_weights(net, out / "net.safetensors", {"data": {"size": 32}})
    interpret(Interpretation(str(pictures), weights=str(out / "net.safetensors"), out=str(out), show="a,c"))
    return out


def test_measures_json_holds_every_stage(inside):
    content = json.loads((inside / "measures.json").read_text())
    assert (content["pictures"], content["stages"]) == (3, ["D", "1", "2"])
    assert content["unit"] == "(level - 90) / 40"
    assert set(content["measures"]) == MEASURES | {"contrast", "memory_change"}
    shapes = {name: np.shape(values["mean"]) for name, values in content["measures"].items()}
    assert shapes["spectrum"] == (3, 32)
    assert (shapes["sparsity"], shapes["contrast"], shapes["memory_change"]) == ((2,), (2,), (1,))


def test_a_picture_that_is_shrunk_much_is_counted(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "large.png"), np.arange(40 * 800, dtype=np.uint8).reshape(40, 800))
    cv2.imwrite(str(tmp_path / "small.png"), np.arange(40 * 80, dtype=np.uint8).reshape(40, 80))
    said = "1 pictures of over 768 pixels a side were shrunk to 256x256; --size 0 keeps their own"
    for size, expected in ((None, True), (256, False)):
        options = Interpretation(str(tmp_path), method="pcp", size=size)
        (_, image), *_ = batches(pictures_of(options), subject_of(options), options)
        assert image.shape == (2, 1, 256, 256)
        assert (said in capsys.readouterr().out) == expected


def test_noise_is_a_part_like_the_others(pictures, tmp_path):
    net = rpcanet.build("l_rpcanet", stages=2, channels=4, narrow=2, noise_layers=1)
    rpcanet.save_weights(net, tmp_path / "net.safetensors", {"data": {"size": 32}})
    options = {"weights": str(tmp_path / "net.safetensors"), "out": str(tmp_path), "show": "a"}
    interpret(Interpretation(str(pictures), **options))
    content = json.loads((tmp_path / "measures.json").read_text())
    assert set(content["measures"]) == MEASURES | {"noise"}
    shown = loadmat(tmp_path / "stages" / "a.mat")
    assert shown["noise"].shape == shown["object"].shape == (32, 32, 2)
    with torch.no_grad():
        noises = net.eval()(torch.from_numpy(shown["image"])[None, None].float(), return_stages=True).noises
    np.testing.assert_allclose(shown["noise"][..., 1], noises[1][0, 0], rtol=1e-3, atol=1e-5)


def test_matlab_files_hold_the_planes_that_were_measured(inside):
    measures = loadmat(inside / "measures.mat")
    stages = {name: loadmat(inside / "stages" / f"{name}.mat") for name in ("a", "c")}
    assert stages["a"]["background"].shape == stages["a"]["contrast"].shape == (32, 32, 2)
    assert measures["spectrum_mean"].shape == (3, 32)
    assert sorted(p.name for p in (inside / "stages").iterdir()) == ["a.mat", "c.mat"]
    largest = [np.linalg.svd(np.maximum(mat["image"], 0), compute_uv=False)[0] for mat in stages.values()]
    mean, std = measures["spectrum_mean"][0, 0], measures["spectrum_std"][0, 0]
    assert abs(np.array(largest) - mean).max() <= std * 3**0.5  # no picture is farther off in three


def test_tensorboard_has_charts_and_images(inside):
    events = EventAccumulator(str(inside / "tensorboard"), {"scalars": 0, "images": 0}).Reload()
    scalars = events.Tags()["scalars"]
    assert {"spectrum/D", "spectrum/B_1", "spectrum/B_2", "stage/sparsity", "stage/energy_5"} <= set(scalars)
    assert [event.step for event in events.Scalars("stage/effective_rank")] == [0, 1, 2]
    assert [event.step for event in events.Scalars("stage/memory_change")] == [2]
    assert set(events.Tags()["images"]) == {
        f"figures/{name}" for name in ("spectrum", "sparsity", "profiles", "a", "c")
    }


class Links(HTMLParser):
    """What a page shows and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]


def test_the_report_loads_nothing(inside):
    text = (inside / "report.html").read_text()
    page = Links(text)
    assert page.tags.count("img") == 5
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?:", text)
    assert "effective rank" in text


def test_a_solver_shows_its_iterations(pictures, tmp_path):
    interpret(Interpretation(str(pictures), method="pcp", out=str(tmp_path), size=32, show="1"))
    content = json.loads((tmp_path / "measures.json").read_text())
    assert content["stages"] == ["D", "1", "3", "10", "end"]
    fidelity = content["measures"]["fidelity"]["mean"]
    assert fidelity[-1] < 1e-5 * fidelity[0]


def test_pictures_of_one_size_keep_it(tmp_path):
    picture = np.random.default_rng(1).integers(0, 255, (20, 30), dtype=np.uint8)
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture)
    interpret(Interpretation(str(tmp_path), method="pssv", out=str(tmp_path / "out"), size=0))
    measures = json.loads((tmp_path / "out" / "measures.json").read_text())["measures"]
    assert np.shape(measures["spectrum"]["mean"]) == (5, 20)
    assert np.max(measures["spectrum"]["std"]) < 1e-5 * np.max(measures["spectrum"]["mean"])


def test_figures_of_an_earlier_look_are_no_pictures(tmp_path):
    (tmp_path / "out/figures").mkdir(parents=True)
    for name in ("a.png", "out/figures/spectrum.png"):
        cv2.imwrite(str(tmp_path / name), np.eye(32, dtype=np.uint8))
    options = Interpretation(str(tmp_path), method="pcp", out=str(tmp_path / "out"))
    assert list(pictures_of(options)) == ["a"]


def test_a_number_is_the_name_of_a_picture_where_there_is_one(tmp_path, run):
    names = [f"{number:06d}" for number in range(1, 9)]
    assert chosen("000003", names) == ["000003"]
    assert chosen("000003,000005", names) == ["000003", "000005"]
    assert chosen("2", names) == ["000001", "000005"]
    assert chosen("100", names) == names
    assert chosen(None, ["1", "2", "3", "4", "5", "6", "7", "8"]) == ["1", "3", "5", "7"]
    for name in names[:3]:
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.eye(32, dtype=np.uint8))
    given = ("--method=pcp", "--images", tmp_path, "--size=32", "--out", tmp_path / "out")
    assert run(command, *given, "--show", "000002")[0] == 0
    assert [path.name for path in (tmp_path / "out/stages").iterdir()] == ["000002.mat"]


def test_faults_are_named(pictures, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("a\nz\n")
    faults = {
        "expected one of --weights and --method": {},
        "no picture z among the 3": {"method": "pcp", "show": "a,z"},
        "names.txt: no pictures z in ": {"method": "pcp", "names": str(names)},
        "none.txt: no such file": {"method": "pcp", "names": str(tmp_path / "none.txt")},
        "batch_size must be at least 1": {"method": "pcp", "batch_size": 0},
        "resize them to one size": {"method": "pcp", "size": 0},
    }
    for message, options in faults.items():
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            interpret(Interpretation(str(pictures), out=str(tmp_path / "out"), **options))


def test_pictures_of_subfolders_are_shown_below_their_folders(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
    for name in ("seq1/000", "seq2/000"):
        (tmp_path / "pictures" / name).parent.mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "pictures" / f"{name}.png"), picture)
    interpret(Interpretation(str(tmp_path / "pictures"), method="pcp", out=str(tmp_path / "out"), size=32))
    for name in ("seq1/000", "seq2/000"):
        assert loadmat(tmp_path / "out" / "stages" / f"{name}.mat")["image"].shape == (32, 32)
        assert (tmp_path / "out" / "figures" / f"{name}.png").is_file()


@pytest.mark.parametrize("option", ["--mean=5", "--std=1", "--dataset=drive"])
def test_options_of_networks_are_refused_of_a_method(pictures, tmp_path, run, option):
    given = ("--method", "pcp", "--images", pictures, "--out", tmp_path / "out", option)
    status, _, complaint = run(command, *given)
    assert status == 2
    assert f"{option.partition('=')[0]} is not read beside --method" in complaint
    assert not (tmp_path / "out").exists()


def test_the_command_line_explains_itself_and_its_faults(tmp_path):
    tool = [sys.executable, str(ROOT / "tools" / "interpret.py")]
    shown = subprocess.run([*tool, "--help"], capture_output=True, text=True)
    assert "report.html" in shown.stdout
    fault = [*tool, "--method", "pcp", "--images", str(tmp_path / "none")]
    done = subprocess.run(fault, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("interpret.py: error: ")
    assert "none: no such file or folder" in done.stderr
