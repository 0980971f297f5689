"""Weights from anywhere: no code runs, nothing large is allocated for a small file, every error names the file."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from unfoldkit import rpcanet
from unfoldkit.common.checkpoints import Checkpoints
from unfoldkit.common.configuration import read_configuration
from unfoldkit.sbl import UnfoldedKroSBL, load_estimator, save_estimator
from unfoldkit.tools.train import parser


class Hostile:
    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def plain_pickle(hostile, path):
    path.write_bytes(pickle.dumps(hostile))


def nested_in_torch_file(hostile, path):
    torch.save({"decos.0.lowrank.convs.0.weight": torch.ones(4, 1, 3, 3), "epoch": hostile}, path)


def zip_of_pickle(hostile, path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"state_dict": hostile}, protocol=2))
        file.writestr("archive/version", "3")


@pytest.mark.parametrize("write", [plain_pickle, nested_in_torch_file, zip_of_pickle])
@pytest.mark.parametrize(
    "load",
    [rpcanet.load_weights, load_estimator, Checkpoints().load_checkpoint],
    ids=["net", "sbl", "resume"],
)
def test_a_hostile_pickle_runs_no_code(tmp_path, write, load):
    path, trace = tmp_path / "weights.pkl", tmp_path / "trace"
    write(Hostile(trace), path)
    with pytest.raises(ValueError, match=r"weights.pkl"):
        load(path)
    assert not trace.exists()


def test_the_hostile_pickle_would_run_code_where_it_could(tmp_path):
    nested_in_torch_file(Hostile(tmp_path / "trace"), tmp_path / "weights.pkl")
    torch.load(tmp_path / "weights.pkl", weights_only=False)
    assert (tmp_path / "trace").exists()


def test_a_hostile_yaml_runs_no_code(tmp_path, capsys):
    path, trace = tmp_path / "config.yaml", tmp_path / "trace"
    path.write_text(f'network: !!python/object/apply:os.system ["touch {trace}"]\n')
    with pytest.raises(ValueError, match=r"config.yaml: not a readable configuration"):
        read_configuration(path)
    with pytest.raises(SystemExit):
        parser().parse_args([f"--config={path}"])
    assert not trace.exists()


@pytest.mark.parametrize("content", ["", "- 1\n", "3", "network: 3\n", "\x00", "{"])
def test_a_damaged_configuration_is_named(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"config.yaml: "):
        read_configuration(path)


def rewritten(path, **metadata):
    """The weights at `path` with other metadata."""
    state = rpcanet.build("rpcanet", stages=1, channels=4).state_dict()
    stated = {"format": "unfoldkit", "network": "rpcanet", "architecture": '{"stages": 1, "channels": 4}'}
    save_file(state, path, {**stated, **metadata})
    return path


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"network": "unet"}, "describes no network"),
        ({"architecture": "{"}, "not readable JSON"),
        ({"architecture": "[" * 100_000}, "not readable JSON"),
        ({"architecture": "[1]"}, "must be a JSON object"),
        ({"architecture": '{"stages": 1000000000, "channels": 4}'}, "states 1000000000 stages, but holds"),
        ({"architecture": '{"stages": 1, "channels": 1000000}'}, "do not fit"),
        ({"architecture": '{"stages": 1, "channels": -4}'}, "describes no network"),
        ({"architecture": '{"stages": 1, "channels": "many"}'}, "describes no network"),
        ({"architecture": '{"stages": 1, "width": 4}'}, "describes no network"),
        ({"architecture": '{"stages": 1, "channels": 4, "std": 0}'}, "describes no network"),
    ],
)
def test_metadata_is_checked_before_anything_is_built(tmp_path, metadata, message):
    with pytest.raises(ValueError, match=f"net.safetensors: .*{message}"):
        rpcanet.load_weights(rewritten(tmp_path / "net.safetensors", **metadata))


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ('"noise_layers": 1000000000', "states 1000000000 layers of a noise step"),
        ('"noise_layers": "many"', "describes no network"),
        ('"narrow": 1000000', "do not fit LRPCANet"),
        ('"narrow": -1', "describes no network"),
        ('"carry_noise": 3', "describes no network"),
    ],
)
def test_sizes_of_an_l_rpcanet_are_checked_before_anything_is_built(tmp_path, stated, message):
    path = tmp_path / "net.safetensors"
    state = rpcanet.build("l_rpcanet", stages=1, channels=4, narrow=2, noise_layers=1).state_dict()
    architecture = f'{{"stages": 1, "channels": 4, "narrow": 2, "noise_layers": 1, {stated}}}'
    save_file(state, path, {"format": "unfoldkit", "network": "l_rpcanet", "architecture": architecture})
    with pytest.raises(ValueError, match=f"net.safetensors: .*{message}"):
        rpcanet.load_weights(path)


def test_training_that_is_no_json_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"net.safetensors: its training is not readable JSON"):
        rpcanet.read_training(rewritten(tmp_path / "net.safetensors", training="no"))


def test_tensors_larger_than_their_file_are_refused(tmp_path):
    path = tmp_path / "net.pkl"
    torch.save({"decos.0.lowrank.convs.0.weight": torch.ones(1).expand(2**40, 1, 3, 3)}, path)
    with pytest.raises(ValueError, match=r"net.pkl: claims tensors of \d+ bytes in a file of \d+"):
        rpcanet.load_weights(path)


@pytest.mark.parametrize(
    "architecture", ["", "[]", '{"iterations": 1000000000}', '{"depth": 3}', '{"sweeps": "x"}']
)
def test_an_estimator_that_does_not_fit_is_named(tmp_path, architecture):
    path = tmp_path / "net.safetensors"
    state = UnfoldedKroSBL(iterations=2).state_dict()
    save_file(state, path, {"format": "unfoldkit-estimator", "architecture": architecture})
    with pytest.raises(ValueError, match=r"net.safetensors: "):
        load_estimator(path)


@pytest.mark.parametrize("kind", ["net", "estimator"])
def test_every_truncation_of_weights_is_named(tmp_path, kind):
    path = tmp_path / "w.safetensors"
    if kind == "net":
        rpcanet.save_weights(rpcanet.build("rpcanet", stages=1, channels=2), path)
    else:
        save_estimator(UnfoldedKroSBL(iterations=2), path)
    whole, load = path.read_bytes(), rpcanet.load_weights if kind == "net" else load_estimator
    for length in range(0, len(whole), len(whole) // 30):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"w.safetensors"):
            load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_a_tensor_that_float32_cannot_hold_is_named(tmp_path, value):
    state = rpcanet.build("rpcanet", stages=1, channels=2).double().state_dict()
    state["stages.0.oem.epsilon"].fill_(value)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"net.pth: stages.0.oem.epsilon holds NaN or infinity"):
        rpcanet.load_weights(tmp_path / "net.pth")


def test_an_estimator_that_is_not_finite_is_named(tmp_path):
    net = UnfoldedKroSBL(iterations=2)
    net.start.data.fill_(torch.nan)
    save_estimator(net, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"net.safetensors: start holds NaN or infinity"):
        load_estimator(tmp_path / "net.safetensors")
