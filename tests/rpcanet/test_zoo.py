"""The weights that come with the package: found by name, checked when read, measured as their cards say."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from unfoldkit.rpcanet import (
    Evaluation,
    build,
    card,
    evaluate_data_set,
    load_weights,
    pretrained,
    pretrained_names,
    read_training,
    save_weights,
)
from unfoldkit.rpcanet.zoo import cards
from unfoldkit.rpcanet.zoo.pretrained import FOLDER

DATA = Path(__file__).parents[3] / "shared" / "data"


def test_every_name_is_a_network_and_a_data_set() -> None:
    assert pretrained_names()
    for name in pretrained_names():
        network, data_set = name.rsplit("-", 1)
        assert card(name).data_set == data_set
        assert f"s{len(pretrained(network, data_set).stages)}" in network
        assert read_training(f"zoo:{name}")


def test_all_of_them_are_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 30 * 2**20


def test_an_unknown_name_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(FileNotFoundError, match=pretrained_names()[0].replace("+", r"\+")):
        load_weights("zoo:rpcanet-nowhere")


def test_changed_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_weights(build("rpcanet", stages=1), path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    next(iter(tensors.values())).view(-1)[0] += 1
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match="checksum"):
        load_weights(path)


def test_half_precision_keeps_what_is_no_convolution_as_it_was(tmp_path: Path) -> None:
    net = build("rpcanet++", stages=1)
    save_weights(net, tmp_path / "half.safetensors", half=True)
    read = load_weights(tmp_path / "half.safetensors").state_dict()
    for key, tensor in net.state_dict().items():
        kept = tensor.half().float() if tensor.ndim > 1 else tensor
        assert torch.equal(read[key], kept), key


def test_what_joins_is_measured_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "FOLDER", tmp_path)
    record = {"data": {"root": "/mine"}, "recipe": {"epochs": 1}}
    save_weights(build("rpcanet++", stages=1, channels=8), tmp_path / "run.safetensors", record)
    evaluation = Evaluation("synthetic", count=2, size=32)
    path = cards.add(str(tmp_path / "run.safetensors"), "x-synthetic", evaluation, "ours", "train.py", "none")
    with safe_open(path, framework="pt") as file:
        told = json.loads(file.metadata()["card"])
    again = evaluate_data_set(Evaluation("synthetic", str(path), count=2, size=32))
    assert told["measured"]["iou"] == pytest.approx(again.values["iou"], abs=1e-6)
    assert read_training(path)["data"] == {"root": "DIR"}


def test_a_card_without_its_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--licence, --limits"):
        cards.add("net.safetensors", "x", Evaluation("synthetic"), "", "train.py", "")


@pytest.mark.slow
@pytest.mark.reference
@pytest.mark.parametrize("name", pretrained_names())
def test_a_card_states_what_is_measured(name: str) -> None:
    told = card(name)
    if not (DATA / told.data_set).exists():
        pytest.skip("needs the pictures in ../shared")
    found = evaluate_data_set(Evaluation(told.data_set, f"zoo:{name}", root=str(DATA / told.data_set)))
    for metric, value in told.measured.items():
        assert found.values[metric] == pytest.approx(value, abs=5e-4), metric
