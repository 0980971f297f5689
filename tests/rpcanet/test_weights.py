"""Weights files: round trips, the published layout, and clear refusals."""

import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from unfoldkit.rpcanet import (
    DRPCANet,
    LRPCANet,
    RPCANet,
    RPCANetPlusPlus,
    build,
    from_published,
    load_weights,
    read_training,
    save_weights,
)
from unfoldkit.rpcanet.inference.preprocessing import prepared_network
from unfoldkit.tools.benchmarks.plain.networks import plain


@pytest.mark.parametrize(
    "net",
    [
        RPCANet(stages=2, channels=4),
        RPCANetPlusPlus(3, 8, mean=83.6, std=54.2),
        DRPCANet(2, 16, mean=83.6),
        LRPCANet(2, 16, std=54.2, narrow=3, noise_layers=2, carry_noise=True),
    ],
    ids=lambda net: type(net).__name__,
)
def test_round_trip_keeps_network_normalisation_and_training(tmp_path, net):
    path = tmp_path / "any name.bin"
    save_weights(net, path, training={"recipe": {"epochs": 3}})
    again = load_weights(path)
    assert type(again) is type(net)
    assert again.architecture == net.architecture
    assert not again.training
    assert read_training(path) == {"recipe": {"epochs": 3}}
    for key, tensor in net.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor)


@pytest.mark.reference
def test_official_weights_are_recognised(reference_file):
    net = load_weights(reference_file("weights/rpcanet_sirst_official.pkl"))
    assert isinstance(net, RPCANet)
    assert net.architecture == {"stages": 6, "channels": 32, "mean": 0.0, "std": 255.0}


@pytest.mark.reference
def test_published_plus_plus_file(reference_file, tmp_path):
    stored = torch.load(reference_file("reference/rpcanet_plus_plus_s3.pt"), weights_only=True)
    torch.save(stored["state_dict"], tmp_path / "net.pkl")
    net = load_weights(tmp_path / "net.pkl")
    assert isinstance(net, RPCANetPlusPlus)
    assert net.architecture["stages"] == 3


@pytest.mark.parametrize(
    ("name", "network", "sizes"),
    [
        ("rpcanet", RPCANet, {"stages": 3, "channels": 5}),
        ("rpcanet++", RPCANetPlusPlus, {"stages": 2, "channels": 8}),
        ("drpca_net", DRPCANet, {"stages": 3, "channels": 20}),
        ("l_rpcanet", LRPCANet, {"stages": 1, "channels": 16, "narrow": 4, "noise_layers": 3}),
        ("l_rpcanet", LRPCANet, {"stages": 2, "channels": 32, "narrow": 32, "noise_layers": 1}),
    ],
)
def test_published_files_tell_network_and_sizes_by_their_keys(name, network, sizes, tmp_path):
    torch.save(plain(name, **sizes).state_dict(), tmp_path / "net.pkl")
    net = load_weights(tmp_path / "net.pkl")
    assert type(net) is network
    assert sizes.items() <= net.architecture.items()
    assert net.architecture.get("carry_noise", False) is False


@pytest.mark.parametrize("name", ["drpca_net", "l_rpcanet"])
@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop(sorted(state)[-1]),
        lambda state: state.update({"decos.0.merge.other.weight": torch.ones(1)}),
        lambda state: state.update({"decos.0.lowrank.convs.0.weight": torch.tensor(1.0)}),
        lambda state: state.update({"decos.1.sparse.convs.2.bias": torch.ones(3)}),
        lambda state: state.update({"decos.7.sparse.convs.0.bias": torch.ones(3)}),
    ],
    ids=["one less", "one more", "a number", "another size", "a gap between stages"],
)
def test_a_published_file_that_does_not_fit_is_named(name, change, tmp_path):
    state = plain(name, stages=2, channels=16).state_dict()
    change(state)
    torch.save(state, tmp_path / "net.pkl")
    with pytest.raises(ValueError, match=r"net.pkl: "):
        load_weights(tmp_path / "net.pkl")


@pytest.mark.reference
def test_official_l_rpcanet(reference_file):
    net = load_weights(reference_file("weights/l_rpcanet_nudt_sirst_official.pkl"))
    assert isinstance(net, LRPCANet)
    assert net.architecture == LRPCANet().architecture


class Malicious:
    def __reduce__(self):
        return exec, ("raise SystemExit('code ran')",)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "neither safetensors nor a pickle of tensors"),
        (lambda path: path.write_text("no weights"), "neither safetensors nor a pickle of tensors"),
        (lambda path: path.write_bytes(pickle.dumps(Malicious())), "neither safetensors nor a pickle"),
        (lambda path: torch.save([1, 2], path), "expected a dictionary of tensors, found a list"),
        (lambda path: torch.save({"epoch": 3}, path), r"found 1 entries \(epoch"),
        (lambda path: torch.save({1: torch.ones(1)}, path), r"found 1 entries \(1,"),
        (lambda path: torch.save({"conv.weight": torch.ones(1)}, path), "expected keys 'decos.0.lowrank"),
        (lambda path: save_file({"a": torch.ones(1)}, path), "without this project's description"),
        (lambda path: path.write_bytes(b"\x10" + b"\0" * 7 + b'{"a":1'), "not a readable safetensors"),
    ],
    ids=[
        "empty",
        "text",
        "code",
        "list",
        "numbers",
        "no names",
        "other network",
        "other safetensors",
        "truncated",
    ],
)
def test_anything_else_is_refused_with_what_was_found(tmp_path, write, message):
    path = tmp_path / "file.pkl"
    write(path)
    with pytest.raises(ValueError, match=message):
        load_weights(path)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_weights(tmp_path / "none.pkl")


def test_tensors_of_another_size_are_refused(tmp_path):
    published = OrderedDict({"decos.0.lowrank.convs.0.weight": torch.ones(32, 1, 3, 3)})
    with pytest.raises(ValueError, match="do not fit RPCANet"):
        from_published(published)


def test_unknown_network_name():
    with pytest.raises(ValueError, match="name must be one of rpcanet, rpcanet"):
        build("unet")


@pytest.mark.parametrize(
    ("data", "stated"),
    [
        (
            {"size": 200, "levels": "7300,8200", "grey": "pillow"},
            ["resized to 200x200", "levels 7300,8200 onto 0 and 255", "Pillow's convert('L')"],
        ),
        ({"size": 48, "crop": True, "levels": "full", "grey": "opencv"}, ["windows of 48x48", "OpenCV"]),
        ({"size": 0, "levels": "full"}, ["any height and width; levels", "16 bits divided by 257"]),
        ({"size": 0, "levels": "percentile"}, ["255; colour as BT.601 luma; from each picture's own low"]),
        (
            {"size": 0, "levels": None},
            ["8 bits as they are", "16 bits that fill their range", "others from each"],
        ),
        (None, ["not stated: the commands resize pictures to 256x256", "luma; 8 bits as they are"]),
    ],
)
def test_files_state_in_words_how_the_network_was_trained_to_take_pictures(tmp_path, data, stated):
    net, path = RPCANet(1, 4, mean=83.5, std=54), tmp_path / "net.safetensors"
    save_weights(net, path, {} if data is None else {"data": data})
    with safe_open(path, framework="pt") as file:
        words = file.metadata()["preprocessing"]
    assert words.startswith("image = (levels - 83.5) / 54, float32 (batch, 1, height, width), ")
    assert all(part in words for part in stated), words
    assert ("257" in words) == ((data or {}).get("levels") in (None, "full"))


@pytest.mark.parametrize("protocol", ["vessel", "overlap", None])
def test_files_state_the_padding_of_vessels(tmp_path, protocol):
    path = tmp_path / "net.safetensors"
    save_weights(RPCANet(1, 4), path, {"data": {"size": 0}, "recipe": {"protocol": protocol}})
    with safe_open(path, framework="pt") as file:
        words = file.metadata()["preprocessing"]
    padded = "any height and width, padded with zeros below and to the right to multiples of 32; levels"
    assert (padded in words) == (protocol == "vessel")
    assert ("padded" in words) == (protocol == "vessel")


@pytest.mark.parametrize(
    "data", [{"size": 64, "levels": "full"}, {"size": 256, "crop": True, "grey": "pillow"}]
)
def test_how_pictures_were_prepared_travels_through_folders(tmp_path, capsys, data):
    net, training = RPCANet(2, 4, mean=83.5, std=54), {"data": {**data, "mean": 83.5, "std": 54.0}}
    save_weights(net, tmp_path / "run.safetensors", training)
    load_weights(tmp_path / "run.safetensors").save_pretrained(tmp_path / "first")
    RPCANet.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    save_weights(load_weights(tmp_path / "second"), tmp_path / "again.safetensors")
    (_, expected), *others = (
        prepared_network(tmp_path / name, "sirst")
        for name in ("run.safetensors", "first", "second", "again.safetensors")
    )
    assert [found for _, found in others] == [expected] * 3
    assert read_training(tmp_path / "again.safetensors") == training
    assert "assuming" not in capsys.readouterr().out
