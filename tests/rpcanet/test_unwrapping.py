"""Weights as people have them: in dictionaries, with prefixes, as numpy arrays, in checkpoints and folders."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import os
import pickle
import zipfile
from argparse import Namespace
from collections import OrderedDict

import lightning as L
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unfoldkit.common.checkpoints import Checkpoints, Provenance
from unfoldkit.datasets import SegmentationDataset, SyntheticScenes
from unfoldkit.datasets.datamodule import SegmentationData
from unfoldkit.rpcanet import (
    LowRankRPCANet,
    RPCANet,
    RPCANetPlusPlus,
    build,
    load_weights,
    read_training,
    save_weights,
)
from unfoldkit.rpcanet.training.task import SegmentationTask

NETS = [RPCANet(2, 4), RPCANetPlusPlus(2, 8), LowRankRPCANet(1, 4)]


def published(net):
    """The tensors of an RPCANet under the keys of the official files."""
    theirs = {"bam.layers": "lowrank.convs", "oem.epsilon": "sparse.epsilon", "oem.layers": "sparse.convs"}
    state = {}
    for key, tensor in net.state_dict().items():
        name = key.replace("stages.", "decos.").replace("irm.layers", "merge.mapping")
        for ours, their in theirs.items():
            name = name.replace(ours, their)
        state[name] = tensor
    return state


def nested(state, *keys):
    for key in reversed(keys):
        state = {key: state}
    return state


def prefixed(state, prefix):
    return {prefix + key: tensor for key, tensor in state.items()}


def arrays(state):
    return {key: tensor.numpy() for key, tensor in state.items()}


def pickled(content, path, protocol=4):
    path.write_bytes(pickle.dumps(content, protocol))


def same(found, net, tolerance=0.0):
    assert type(found) is type(net)
    assert not found.training
    for key, tensor in net.state_dict().items():
        assert found.state_dict()[key].dtype == tensor.dtype
        torch.testing.assert_close(found.state_dict()[key], tensor, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("net", NETS, ids=lambda net: type(net).__name__)
def test_own_state_dict_tells_network_stages_and_channels(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "net.pth")
    found = load_weights(tmp_path / "net.pth")
    same(found, net)
    assert found.architecture == net.architecture
    assert read_training(tmp_path / "net.pth") == {}


WRAPPINGS = {
    "state_dict": lambda x: {"state_dict": x, "epoch": 3, "best": 0.7},
    "net": lambda x: {
        "net": x,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{}]},
    },
    "model_state_dict": lambda x: {"model_state_dict": x, "loss": np.float64(0.3), "date": "monday"},
    "any name": lambda x: {"Generator weights": x, "steps": torch.tensor(3)},
    "twice": lambda x: nested(x, "checkpoint", "state_dict"),
    "thrice": lambda x: nested(x, "a", "b", "c"),
    "module.": lambda x: prefixed(x, "module."),
    "model.": lambda x: prefixed(x, "model."),
    "net.module.": lambda x: {"state_dict": prefixed(x, "net.module.") | {"loss.weight": torch.ones(1)}},
    "_orig_mod.": lambda x: prefixed(x, "_orig_mod."),
    "module._orig_mod.": lambda x: nested(prefixed(x, "module._orig_mod."), "state_dict"),
    "compiled stages": lambda x: {
        key.replace("decos.0", "decos.0._orig_mod").replace("stages.0", "stages.0._orig_mod"): value
        for key, value in x.items()
    },
    "numbers beside": lambda x: {**x, "epoch": 3, "name": "run 7"},
    "parameters": lambda x: {
        key: torch.nn.Parameter(value) if value.is_floating_point() else value for key, value in x.items()
    },
}


@pytest.mark.parametrize("layout", [published, lambda net: net.state_dict()], ids=["published", "own"])
@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_wrappings(tmp_path, wrap, layout):
    torch.save(wrap(layout(NETS[0])), tmp_path / "net.pth")
    same(load_weights(tmp_path / "net.pth"), NETS[0])


def legacy(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [legacy, pickled])
@pytest.mark.parametrize("name", ["model_state_dict", "_orig_mod.", "parameters"])
def test_wrappings_in_other_files(tmp_path, write, name):
    write(WRAPPINGS[name](published(NETS[0])), tmp_path / "net.pth")
    same(load_weights(tmp_path / "net.pth"), NETS[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    state = {key: x.to(dtype) if x.is_floating_point() else x for key, x in NETS[1].state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "net.pt")
    same(load_weights(tmp_path / "net.pt"), NETS[1], tolerance=1e-2 if dtype.itemsize == 2 else 1e-7)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol(tmp_path, protocol):
    state = OrderedDict(NETS[0].state_dict())
    for name, content in (("numpy", arrays(state)), ("torch", {"net": state})):
        if protocol == 0 and name == "torch":
            continue  # torch's tensors cannot be written in it
        pickled({"state_dict": content, "epoch": np.int64(3)}, tmp_path / name, protocol)
        same(load_weights(tmp_path / name), NETS[0])


@pytest.mark.parametrize("order", ["C", "F", ">"])
def test_arrays_in_another_order(tmp_path, order):
    state = {
        key: x.astype(x.dtype.newbyteorder(">")) if order == ">" else np.asarray(x, order=order)
        for key, x in arrays(NETS[0].state_dict()).items()
    }
    pickled(state, tmp_path / "net.pkl")
    np.savez(tmp_path / "net.npz", **state)  # type: ignore[arg-type]
    for path in (tmp_path / "net.pkl", tmp_path / "net.npz"):
        same(load_weights(path), NETS[0])


def test_files_of_numpy(tmp_path):
    state = arrays(NETS[0].state_dict())
    np.savez_compressed(tmp_path / "net.npz", **state)
    np.save(tmp_path / "net.npy", state, allow_pickle=True)
    torch.save({"model": state}, tmp_path / "net.pth")
    for name in ("net.npz", "net.npy", "net.pth"):
        same(load_weights(tmp_path / name), NETS[0])


def test_safetensors_of_others(tmp_path):
    for name, state in (("a", prefixed(published(NETS[0]), "module.")), ("b", NETS[2].state_dict())):
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / name)
    same(load_weights(tmp_path / "a"), NETS[0])
    same(load_weights(tmp_path / "b"), NETS[2])


@pytest.mark.parametrize("net", [RPCANet(2, 4, mean=83.5, std=54), LowRankRPCANet(1, 8)])
def test_folder_of_save_pretrained(tmp_path, net):
    net.save_pretrained(tmp_path / "mine")
    found = load_weights(tmp_path / "mine")
    same(found, net)
    assert found.architecture == net.architecture
    assert read_training(tmp_path / "mine") == {"data": {"mean": net.mean, "std": net.std}}


@pytest.mark.parametrize("training", [[1], {"data": 1}])
def test_a_folder_whose_training_has_no_sections_is_named(tmp_path, training):
    RPCANet(1, 4).save_pretrained(tmp_path / "mine", config={"training": training})
    with pytest.raises(ValueError, match=r"config.json: its training must hold sections such as data, found"):
        load_weights(tmp_path / "mine")


def test_a_folder_tells_what_no_tensor_does(tmp_path):
    build("l_rpcanet", stages=2, channels=16, carry_noise=True).save_pretrained(tmp_path / "mine")
    assert load_weights(tmp_path / "mine").architecture["carry_noise"] is True


def test_a_folder_without_weights_is_named(tmp_path):
    (tmp_path / "run").mkdir()
    save_weights(NETS[0], tmp_path / "run" / "best.safetensors")
    for read in (load_weights, read_training):
        with pytest.raises(
            FileNotFoundError, match=r"run: expected model.safetensors.*found best.safetensors"
        ):
            read(tmp_path / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A checkpoint of this project's training, one step long, and its network."""
    path = tmp_path_factory.mktemp("run") / "last.ckpt"
    configuration = {
        "network": {"name": "rpcanet++", "stages": 2, "channels": 4},
        "data": {"size": 32, "mean": 59.9, "std": 46.8},
        "recipe": {"epochs": 1, "seed": 7},
    }
    net = build("rpcanet++", stages=2, channels=4, mean=59.9, std=46.8)
    scenes = SegmentationDataset(SyntheticScenes("train", 2, 32), 32, 59.9, 46.8)
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=1,
        callbacks=[Provenance(configuration)],
        plugins=[Checkpoints()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(SegmentationTask(net), SegmentationData(scenes, scenes, batch_size=2, workers=0))
    trainer.save_checkpoint(path)
    return path, net.cpu(), configuration


def test_lightning_checkpoint_of_an_own_run(run):
    path, net, configuration = run
    found = load_weights(path)
    same(found, net.eval())
    assert found.architecture == net.architecture
    assert read_training(path) == configuration


def test_lightning_checkpoint_of_another(tmp_path, run):
    """Hyper-parameters of plain values are read over; others are refused with what to do."""
    checkpoint = torch.load(run[0], weights_only=True)
    checkpoint["state_dict"] = prefixed(NETS[0].state_dict(), "model.")
    checkpoint["callbacks"] = {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.7)}}
    checkpoint["hyper_parameters"] = {"lr": 1e-4, "size": (256, 256)}
    torch.save(checkpoint, tmp_path / "theirs.ckpt")
    same(load_weights(tmp_path / "theirs.ckpt"), NETS[0])
    assert read_training(tmp_path / "theirs.ckpt") == {}
    torch.save({**checkpoint, "args": Namespace(lr=1e-4)}, tmp_path / "args.ckpt")
    with pytest.raises(
        ValueError, match=r"args.ckpt: .*calls for argparse.Namespace; .*save the tensors alone"
    ):
        load_weights(tmp_path / "args.ckpt")


@pytest.mark.parametrize("write", [torch.save, legacy, pickled])
def test_a_whole_network_is_refused_with_what_to_do(tmp_path, write):
    write(NETS[0], tmp_path / "net.pth")
    with pytest.raises(
        ValueError, match=r"net.pth: .*calls for unfoldkit.rpcanet.networks.*torch.save\(net.sta"
    ):
        load_weights(tmp_path / "net.pth")


def test_a_torchscript_program_is_refused_with_what_to_do(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt", "w") as file:
        for name in ("data.pkl", "constants.pkl", "version"):
            file.writestr(f"net/{name}", b"\x80\x02}.")
    with pytest.raises(ValueError, match=r"net.pt: .*a TorchScript program; code from a file is never run"):
        load_weights(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"student": NETS[0].state_dict(), "teacher": NETS[2].state_dict()},
            "networks at student/, teacher/",
        ),
        (prefixed(NETS[0].state_dict(), "a.") | prefixed(NETS[0].state_dict(), "b."), "networks at a., b."),
        ({"state_dict": {"backbone.conv.weight": torch.ones(1)}}, "expected keys 'decos.0"),
        (NETS[0].state_dict() | {"head.weight": torch.ones(1)}, "do not fit RPCANet.*head.weight"),
        ({"stages.0.oem.layers.0.weight": torch.ones(4, 1, 3, 3)}, "do not fit"),
        ({"stages.0.oem.layers.0.weight": torch.ones(())}, "describes no network"),
        ({key: x.to(torch.int8) for key, x in NETS[0].state_dict().items()}, "in torch.int8"),
        ({key: x.to_sparse() for key, x in NETS[0].state_dict().items()}, "sparse"),
        ({key: x.to("meta") for key, x in NETS[0].state_dict().items()}, "meta"),
        ({"stages.0.x": np.array(["text"])}, "an array that is not read"),
    ],
    ids=["two", "prefixes", "other", "head", "cut", "flat", "integers", "sparse", "meta", "text"],
)
def test_what_is_no_network_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=rf"net.pth: .*{message}"):
        load_weights(tmp_path / "net.pth")


class Hostile:
    def __init__(self, trace, call=os.system):
        self.trace, self.call = trace, call

    def __reduce__(self):
        return self.call, (f"touch {self.trace}",)


def hostile_npy(content, path):
    np.save(path.open("wb"), content, allow_pickle=True)


def hostile_npz(content, path):
    np.savez(path.open("wb"), a=np.ones(2), b=np.array(content, dtype=object))


@pytest.mark.parametrize("wrap", WRAPPINGS.values(), ids=WRAPPINGS)
def test_hostile_pickles_run_no_code_in_any_wrapping(tmp_path, wrap):
    trace = tmp_path / "trace"
    content = wrap(NETS[0].state_dict())
    hidden = [
        {**content, "note": Hostile(trace)},
        {"deep": {"in": [content, Hostile(trace)]}},
        {**content, Hostile(trace).trace: Hostile(trace, eval)},
    ]
    writers = [torch.save, legacy, pickled, hostile_npy, hostile_npz]
    for number, write in enumerate(writers):
        path = tmp_path / f"net{number}.pth"
        write(hidden[number % len(hidden)], path)
        for read in (load_weights, read_training):
            with pytest.raises(
                ValueError, match=rf"{path.name}: .*calls for (\w+\.)?\w+; code from a file is"
            ):
                read(path)
    assert not trace.exists()


GADGETS = {
    "a call of what a call gave": b"cnumpy\ndtype\n(S'f4'\ntR(S'x'\ntR.",
    "a setting of ours": b"cnumpy\nndarray\n(N}S'tensor'\ncnumpy\ndtype\nstb.",
    "a method of ours": b"cnumpy\nndarray.tensor\n.",
    "an inner name": b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.__init__\x93.",
    "an array beyond memory": b"cnumpy\nndarray\n((I1152921504606846976\nttR.",
    "a memo beyond memory": b"\x80\x04Nr\xff\xff\xff\xff0N.",
    "bytes beyond the file": b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00abc.",
    "a torch function": b"ctorch.storage\n_load_from_bytes\n(Vcos\nsystem\n(S'true'\ntR.\ntR.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent name": b"Pstorage\n.",
}


@pytest.mark.parametrize("content", GADGETS.values(), ids=GADGETS)
def test_crafted_pickles_are_refused(tmp_path, content):
    (tmp_path / "net.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"net.pkl: "):
        load_weights(tmp_path / "net.pkl")


def test_a_hostile_file_leaves_the_reader_as_it_was(tmp_path):
    for number, content in enumerate(GADGETS.values()):
        (tmp_path / str(number)).write_bytes(content)
        with pytest.raises(ValueError, match=r"neither safetensors nor|expected a dictionary"):
            load_weights(tmp_path / str(number))
    pickled(arrays(NETS[0].state_dict()), tmp_path / "good")
    same(load_weights(tmp_path / "good"), NETS[0])


def test_damaged_files_are_named(tmp_path):
    """Flipped bytes and cut ends of every kind end in a network or one line that names the file."""
    state = {
        key: tensor[:1].clone() if tensor.ndim else tensor for key, tensor in NETS[0].state_dict().items()
    }
    path, rng = tmp_path / "net.any", np.random.default_rng(0)
    np.savez(tmp_path / "npz", **arrays(state))
    torch.save(state, tmp_path / "zip")
    legacy({"net": state}, tmp_path / "legacy")
    pickled(arrays(state), tmp_path / "pickle")
    hostile_npy(arrays(state), tmp_path / "npy")
    for whole in [(tmp_path / name).read_bytes() for name in ("npz.npz", "zip", "legacy", "pickle", "npy")]:
        for _ in range(25):
            content = bytearray(whole[: rng.integers(len(whole))] if rng.random() < 0.3 else whole)
            for place in rng.integers(len(content), size=rng.integers(6)) if content else ():
                content[place] = rng.integers(256)
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"net.any: "):
                load_weights(path)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["rpcanet_sirst", "rpcanet_chase_db1"])
def test_official_weights_in_wrappings(reference_file, tmp_path, name):
    official = reference_file(f"weights/{name}_official.pkl")
    net, state = load_weights(official), torch.load(official, "cpu", weights_only=True)
    for wrapping in ("twice", "net.module."):
        torch.save(WRAPPINGS[wrapping](dict(state)), tmp_path / "net.pth")
        same(load_weights(tmp_path / "net.pth"), net)
