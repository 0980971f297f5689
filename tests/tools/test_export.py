"""Exports: the same function as the source network at every size, described in their metadata."""

import json
import shlex
import sys
from functools import lru_cache

import cv2
import numpy as np
import onnx
import pytest
import torch

from unfoldkit import rpcanet
from unfoldkit.rpcanet import Export, export_weights
from unfoldkit.rpcanet.inference.export import OPSET, exported, largest_difference
from unfoldkit.tools import export as command
from unfoldkit.tools.export import main

FORMATS = ("onnx", "torch-export", "safetensors")
SIZES = ((1, 1, 1, 1), (3, 1, 17, 50))
TRAINING = {"recipe": {"epochs": 3}, "data": {"size": 200, "levels": "7300,8200"}}


@pytest.fixture(
    scope="module",
    params=[
        "rpcanet++",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("rpcanet", "drpca_net", "l_rpcanet")),
    ],
)
def weights(request, tmp_path_factory):
    """A network with running statistics of its own."""
    torch.manual_seed(0)
    net = rpcanet.build(request.param, stages=2, channels=4, mean=80.0, std=60.0)
    with torch.no_grad():
        for _ in range(3):
            net(torch.randn(4, 1, 24, 24))
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    rpcanet.save_weights(net, path, TRAINING)
    return path


@pytest.fixture(scope="module")
def export(weights, tmp_path_factory):
    """A function from a format to the exported file, and how far it was found from its source."""
    folder = tmp_path_factory.mktemp("exported")
    return lru_cache(lambda format: export_weights(Export(str(weights), format, str(folder / format))))


@pytest.mark.parametrize("format", FORMATS)
def test_agrees_with_its_source_at_every_size(weights, export, format):
    out, largest = export(format)
    assert largest < 1e-4
    net, run = rpcanet.load_weights(weights), exported(out, format)
    for size in SIZES:
        assert largest_difference(net, run, torch.randn(size)) < 1e-4


def test_onnx_states_opset_sizes_and_processing(export):
    out, _ = export("onnx")
    model = onnx.load(out)
    onnx.checker.check_model(model)
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET
    assert {node.domain for node in model.graph.node} == {""}
    for plane in (*model.graph.input, *model.graph.output):
        assert [bool(d.dim_param) for d in plane.type.tensor_type.shape.dim] == [True, False, True, True]
    stated = {entry.key: entry.value for entry in model.metadata_props}
    assert "(levels - 80) / 60" in stated["preprocessing"]
    assert "resized to 200x200" in stated["preprocessing"]
    assert "levels 7300,8200" in stated["preprocessing"]
    assert "sigmoid(object)" in stated["postprocessing"]
    assert json.loads(stated["architecture"])["stages"] == 2
    assert json.loads(stated["training"]) == TRAINING
    assert stated["opset"] == str(OPSET)


def test_no_mean_of_an_onnx_file_is_over_a_whole_plane(export):
    """ONNX Runtime sums one of 400x400 to 2e-4, and two of 400 to rounding."""
    graph = onnx.load(export("onnx")[0]).graph
    known = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert not {node.op_type for node in graph.node} & {"GlobalAveragePool", "AveragePool"}
    assert all(known[node.input[1]].size == 1 for node in graph.node if node.op_type == "ReduceMean")


def test_a_program_holds_only_operators_of_torch(export):
    out, _ = export("torch-export")
    extra = {"metadata.json": ""}
    program = torch.export.load(str(out), extra_files=extra)
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("unfoldkit" in target for target in targets)
    assert "(levels - 80) / 60" in json.loads(extra["metadata.json"])["preprocessing"]


def test_a_low_rank_network_goes_to_safetensors_alone(tmp_path):
    source = tmp_path / "net.safetensors"
    rpcanet.save_weights(rpcanet.build("lowrank", stages=1, channels=4), source)
    with pytest.raises(
        ValueError, match="LowRankRPCANet: its singular value decompositions cannot be exported"
    ):
        export_weights(Export(str(source), "onnx", str(tmp_path / "net.onnx")))
    assert export_weights(Export(str(source), "safetensors", str(tmp_path / "copy.safetensors")))[1] == 0


def test_weights_are_not_overwritten(weights):
    with pytest.raises(ValueError, match="holds the weights that it would be made from"):
        export_weights(Export(str(weights), "safetensors", str(weights)))


def test_weights_that_come_with_the_package_are_exported_under_their_name_again_and_again(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        out, largest = export_weights(Export("zoo:rpcanet++-s3-sirst", "safetensors"))
        assert (str(out), largest) == ("rpcanet++-s3-sirst.safetensors", 0)


def test_the_folder_of_an_export_is_made(weights, tmp_path):
    out = tmp_path / "new" / "folder" / "copy.safetensors"
    assert export_weights(Export(str(weights), "safetensors", str(out)))[0].is_file()


@pytest.fixture
def compared(monkeypatch):
    """The sizes of the images on which an export is held to its source, as they come."""
    sizes = []
    monkeypatch.setattr(
        "unfoldkit.rpcanet.inference.checked_export.largest_difference",
        lambda net, run, image: sizes.append(tuple(image.shape[2:])) or 0.0,
    )
    return sizes


@pytest.fixture
def folders(weights, tmp_path, monkeypatch):
    """Where the command runs: weights and two folders of one picture each, called as its examples call them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "official.pkl").write_bytes(weights.read_bytes())
    for name, shape in (("DIR", (21, 34)), ("OTHER", (40, 15))):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / f"{name}.png"), np.arange(np.prod(shape)).reshape(shape) % 251)
    return tmp_path


def test_the_examples_line_with_pictures_runs_as_it_stands(folders, compared, run):
    line = next(line for line in command.__doc__.splitlines() if "--pictures" in line)
    status, said, complaint = run(command, *shlex.split(line)[2:])
    assert status == 0, complaint
    assert said.startswith("official.safetensors: agrees with official.pkl")
    assert compared[-1] == (21, 34)


@pytest.mark.parametrize(
    "several",
    ["--pictures DIR OTHER", "--pictures DIR --pictures OTHER", "--pictures+ DIR --pictures+ OTHER"],
)
def test_several_folders_of_pictures(folders, compared, run, several):
    given = ("--weights", "official.pkl", "--format", "safetensors", *several.split())
    status, _, complaint = run(command, *given)
    assert status == 0, complaint
    assert compared[-2:] == [(21, 34), (40, 15)]


@pytest.mark.parametrize("plane", range(3))
def test_an_export_of_which_any_plane_is_nan_differs(weights, plane):
    net, image = rpcanet.load_weights(weights), torch.rand(1, 1, 16, 16)
    planes = [*net(image)[:3]]
    assert largest_difference(net, lambda _: planes, image) < 1e-4
    planes[plane] = planes[plane] + torch.nan
    assert np.isnan(largest_difference(net, lambda _: planes, image))


@pytest.mark.parametrize("before", [None, b"of an earlier export"])
def test_an_export_that_differs_leaves_what_was_there(weights, tmp_path, monkeypatch, capsys, before):
    """And differs where it does on any picture."""
    found, out = iter([0.0, float("nan"), 0.0]), tmp_path / "x.onnx"
    monkeypatch.setattr(
        "unfoldkit.rpcanet.inference.checked_export.largest_difference", lambda *_: next(found)
    )
    monkeypatch.setattr(sys, "argv", ["export.py", f"--weights={weights}", f"--out={out}"])
    monkeypatch.setattr("unfoldkit.rpcanet.inference.export._traced", lambda net: None)
    monkeypatch.setattr("unfoldkit.rpcanet.inference.export._onnx", lambda *_: b"")
    monkeypatch.setattr("unfoldkit.rpcanet.inference.checked_export.exported", lambda *_: None)
    if before:
        out.write_bytes(before)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"{out}: differs from {weights} by nan" in capsys.readouterr().err
    assert [path.read_bytes() for path in tmp_path.iterdir()] == ([before] if before else [])


@pytest.mark.slow
@pytest.mark.reference
def test_onnx_agrees_on_a_large_picture_of_little_contrast(reference_file, tmp_path):
    picture = str(reference_file("data/sirst/images/Misc_104.png"))
    out = str(tmp_path / "net.onnx")
    assert export_weights(Export("zoo:rpcanet++-s3-sirst", "onnx", out, [picture]))[1] < 1e-4


@pytest.mark.slow
@pytest.mark.reference
def test_published_weights_on_real_pictures(reference_file, tmp_path):
    weights = reference_file("weights/rpcanet_sirst_official.pkl")
    pictures = [str(reference_file(f"data/sirst/images/Misc_{n}.png")) for n in (70, 111)]
    for format in FORMATS:
        assert export_weights(Export(str(weights), format, str(tmp_path / format), pictures))[1] < 1e-4
