"""Damaged and misplaced files end in a result or in an error that names them."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import re

import cv2
import numpy as np
import pytest
import torch
from fuzzing import ARGUMENTS, fuzz, sets
from hypothesis import strategies as st

from unfoldkit import datasets, rpcanet, sbl


def damaged(content, position, length, value, cut):
    """Bytes overwritten somewhere, or the end cut off."""
    position = int(position * len(content))
    return (
        content[:position]
        if cut
        else content[:position] + bytes([value]) * length + content[position + length :]
    )


DAMAGE = (st.floats(0, 1), st.integers(0, 40), st.integers(0, 255), st.booleans())


def named_or_read(load, path):
    try:
        assert load(path) is not None
    except ValueError as error:
        assert path.name in str(error)  # noqa: PT017 - a result is right, too


@sets
@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tiff", ".ppm", ".gif"])
def test_damaged_pictures(tmp_path, ending, count):
    levels = np.random.default_rng(0).integers(0, 255, (9, 11, 3), dtype=np.uint8)
    whole, path = cv2.imencode(ending, levels)[1].tobytes(), tmp_path / f"picture{ending}"

    def read(*damage):
        path.write_bytes(damaged(whole, *damage))
        named_or_read(datasets.read_image, path)
        named_or_read(datasets.read_mask, path)
        named_or_read(datasets.read_graded, path)
        named_or_read(lambda path: list(datasets.read_pages(path)), path)

    fuzz(count, function=read, strategies=DAMAGE, errors=())


@sets
@pytest.mark.parametrize("kind", ["network", "published", "estimator", "checkpoint", "configuration"])
def test_damaged_files_of_the_tools(tmp_path, kind, count):
    from unfoldkit.common.checkpoints import Checkpoints
    from unfoldkit.common.configuration import read_configuration

    path = tmp_path / "file.any"
    torch.manual_seed(0)
    if kind == "network":
        rpcanet.save_weights(rpcanet.build("rpcanet", stages=1, channels=2), path)
    elif kind == "estimator":
        sbl.save_estimator(sbl.UnfoldedKroSBL(iterations=2), path)
    elif kind == "configuration":
        path.write_text("network:\n  name: rpcanet\n  stages: 3\ndata:\n  root: null\n")
    else:
        torch.save({"decos.0.lowrank.convs.0.weight": torch.ones(4, 1, 3, 3), "a": torch.ones(2)}, path)
    loaders = {
        "network": rpcanet.load_weights,
        "published": rpcanet.load_weights,
        "estimator": sbl.load_estimator,
    }
    loaders |= {"checkpoint": Checkpoints().load_checkpoint, "configuration": read_configuration}
    whole = path.read_bytes()

    def load(*damage):
        path.write_bytes(damaged(whole, *damage))
        named_or_read(loaders[kind], path)

    fuzz(count, function=load, strategies=DAMAGE, errors=())


PLACES = [
    "images/a.png",
    "masks/a.png",
    "images/b.png",
    "masks/b.png",
    "img_idx/test_SIRST.txt",
    "masks/a_pixels0.png",
]
PLACES += [
    "test/images/a.png",
    "test/masks/a.png",
    "test/images/c.jpg",
    "test.txt",
    "a.png",
    "1st_manual/a.png",
]
CONTENTS = ["picture", "other size", "black", "damaged", "text", "empty", "folder"]


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if content == "folder":
        path.mkdir()
        return
    levels = np.zeros((9, 14) if content == "other size" else (12, 10), np.uint8)
    levels[2:5, 3:6] = 0 if content == "black" else 255
    whole = cv2.imencode(".png", levels)[1].tobytes()
    path.write_bytes({"text": b"a\nb\n", "empty": b"", "damaged": whole[:40]}.get(content, whole))


@sets
def test_any_folder_of_pictures(tmp_path, count):
    numbers = iter(range(10**6))

    def opened(name, split, files, skip_bad, keep_empty):
        root = tmp_path / str(next(numbers))
        root.mkdir()
        for place, content in files.items():
            put(root / place, content)
        try:
            pictures = datasets.open_pictures(name, split, root, skip_bad=skip_bad, keep_empty=keep_empty)
            assert datasets.inputs_in([root])
            for k in range(len(pictures)):
                assert pictures[k].image.shape == pictures[k].mask.shape
        except (FileNotFoundError, ValueError) as error:
            words = set(re.findall(r"\w+", str(error)))
            assert str(root) in str(error) or words & ARGUMENTS  # noqa: PT017 - a result is right, too

    files = st.dictionaries(st.sampled_from(PLACES), st.sampled_from(CONTENTS), max_size=6)
    names = st.sampled_from([*datasets.NAMES, "folder", "folder", "folder", "none"])
    splits = st.sampled_from(["train", "test", "test", "val", "", "../x"])
    fuzz(count, function=opened, strategies=(names, splits, files, st.booleans(), st.booleans()))
