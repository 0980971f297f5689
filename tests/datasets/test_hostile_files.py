"""Files from anywhere: bombs, broken and mislabelled pictures, links out of the folder, names of any kind."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import gzip
import resource
import struct
import zlib

import cv2
import numpy as np
import pytest

from unfoldkit.datasets import open_pictures, read_image, read_mask
from unfoldkit.datasets.files import read_names
from unfoldkit.datasets.reading import decoding

LEVELS = np.random.default_rng(0).integers(0, 255, (12, 10), dtype=np.uint8)


def encoded(ending=".png", levels=LEVELS):
    coloured = cv2.cvtColor(levels, cv2.COLOR_GRAY2BGR) if ending in (".ppm", ".gif") else levels
    return cv2.imencode(ending, coloured)[1].tobytes()


def png_of(width, height):
    """A PNG file whose header states any size, with next to nothing behind it."""

    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("ending", [".png", ".jpg", ".gif"])
def test_a_picture_bomb_is_refused_before_its_pixels_are_allocated(tmp_path, ending):
    path = tmp_path / f"bomb{ending}"
    path.write_bytes(png_of(60_000, 60_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (read_image, read_mask):
        with pytest.raises(ValueError, match=f"bomb{ending}: not a readable picture"):
            read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB; the pixels are 3.6 GB


def test_a_compressed_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MOST_BYTES", 10_000)
    path = tmp_path / "bomb.ppm.gz"
    path.write_bytes(gzip.compress(bytes(100_000)))
    with pytest.raises(ValueError, match=r"bomb.ppm.gz: more than 10000 bytes"):
        read_image(path)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".tiff", ".ppm", ".gif"])
def test_every_truncation_is_refused_by_name_or_lacks_no_pixel(tmp_path, ending):
    content, path = encoded(ending), tmp_path / f"cut{ending}"
    path.write_bytes(content)
    whole, refused = read_image(path), 0
    lengths = range(0, len(content), 3)
    for length in lengths:
        path.write_bytes(content[:length])
        try:
            assert np.array_equal(read_image(path), whole)
        except ValueError as error:
            refused += f"cut{ending}: not a readable picture" in str(error)
    assert refused >= len(lengths) - 2  # the last bytes of a TIFF file are padding


def test_an_empty_file_is_named(tmp_path):
    for name in ("empty.png", "empty.ppm.gz"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ValueError, match=f"{name}: not a readable picture"):
            read_image(tmp_path / name)


def test_what_a_file_holds_decides_not_its_ending(tmp_path):
    (tmp_path / "bitmap.png").write_bytes(encoded(".bmp"))
    assert np.array_equal(read_image(tmp_path / "bitmap.png"), LEVELS)
    (tmp_path / "plain.png.gz").write_bytes(encoded())
    with pytest.raises(ValueError, match=r"plain.png.gz: not a readable picture"):
        read_image(tmp_path / "plain.png.gz")


NAMES = ["with space", "größe", "数据", "new\nline", "-dash", "quote'\"", "%s{0}"]


def split_of(root, names):
    for folder in ("images", "masks"):
        (root / "test" / folder).mkdir(parents=True)
        for name in names:
            (root / "test" / folder / f"{name}.png").write_bytes(encoded())
    return root


def test_names_of_any_kind(tmp_path):
    pictures = open_pictures("folder", "test", split_of(tmp_path, NAMES))
    assert sorted(picture.name for picture in pictures) == sorted(NAMES)


@pytest.mark.parametrize("linked", ["images", "masks"])
def test_a_link_out_of_the_data_set_is_refused(tmp_path, linked):
    root = split_of(tmp_path / "set", ["good", "link"])
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded())
    link = root / "test" / linked / "link.png"
    link.unlink()
    link.symlink_to(secret)
    with pytest.raises(FileNotFoundError, match=r"link.png: a link out of"):
        open_pictures("folder", "test", root)
    kept = open_pictures("folder", "test", root, skip_bad=True)
    assert [picture.name for picture in kept] == ["good"]
    assert "link.png: a link out of" in kept.skipped[0]


def test_a_link_within_the_data_set_and_to_the_data_set_are_followed(tmp_path):
    root = split_of(tmp_path / "set", ["good", "link"])
    (root / "test/images/link.png").unlink()
    (root / "test/images/link.png").symlink_to("good.png")
    (tmp_path / "alias").symlink_to(root)
    assert len(open_pictures("folder", "test", tmp_path / "alias")) == 2


def test_linked_folders_are_followed_within_the_data_set_and_named_where_they_lead_out(tmp_path):
    root = split_of(tmp_path / "set", ["good"])
    for folder in ("images", "masks"):
        for place in ("set/store", "elsewhere"):
            (tmp_path / place / folder).mkdir(parents=True)
            (tmp_path / place / folder / "a.png").write_bytes(encoded())
        (root / "test" / folder / "b").symlink_to(f"../../store/{folder}")
    assert [picture.name for picture in open_pictures("folder", "test", root)] == ["b/a", "good"]
    for folder in ("images", "masks"):
        (root / "test" / folder / "c").symlink_to(tmp_path / "elsewhere" / folder)
        with pytest.raises(FileNotFoundError, match=rf"{folder}/c: a link out of .*; expected the folder"):
            open_pictures("folder", "test", root)
        kept = open_pictures("folder", "test", root, skip_bad=True)
        assert [picture.name for picture in kept] == ["b/a", "good"]
        (root / "test" / folder / "c").unlink()
    (root / "test/masks/up").symlink_to("..")
    with pytest.raises(FileNotFoundError, match=r"masks/up: a link to a folder that it lies in"):
        open_pictures("folder", "test", root)


def test_a_list_and_a_split_of_folders_know_linked_folders(tmp_path):
    for folder in ("images", "masks"):
        for place in ("set/store", "elsewhere"):
            (tmp_path / place / folder).mkdir(parents=True)
            (tmp_path / place / folder / "a.png").write_bytes(encoded())
        (tmp_path / "set" / folder / "train").mkdir(parents=True)
        (tmp_path / "set" / folder / "train/b").symlink_to(f"../../store/{folder}")
    assert [picture.name for picture in open_pictures("folder", "train", tmp_path / "set")] == ["b/a"]
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder / "train/b").unlink()
        (tmp_path / "set" / folder / "train/b").symlink_to(tmp_path / "elsewhere" / folder)
    with pytest.raises(FileNotFoundError, match=r"images/train/b: a link out of"):
        open_pictures("folder", "train", tmp_path / "set")
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder / "train").rename(tmp_path / "set" / folder / "kept")
    (tmp_path / "set/train.txt").write_text("kept/b/a\n")
    with pytest.raises(FileNotFoundError, match=r"images/kept/b/a.\*: a link out of"):
        open_pictures("folder", "train", tmp_path / "set")


def test_a_link_to_nothing_or_to_itself_is_an_error(tmp_path):
    root = split_of(tmp_path / "set", ["good", "loop"])
    loop = root / "test/images/loop.png"
    for target in ("none.png", "loop.png"):
        loop.unlink()
        loop.symlink_to(target)
        with pytest.raises((FileNotFoundError, ValueError), match=r"loop.png"):
            list(open_pictures("folder", "test", root))


def test_a_list_of_names_leads_nowhere_else(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
        (tmp_path / "set" / folder / "a.png").write_bytes(encoded())
    (tmp_path / "b.png").write_bytes(encoded())
    (tmp_path / "set" / "test.txt").write_text("a\n../b\n")
    with pytest.raises(FileNotFoundError, match=r"\.\./b\.\*: no such file, which .*test.txt names"):
        open_pictures("folder", "test", tmp_path / "set")
    (tmp_path / "names").write_text("a\n")
    (tmp_path / "set" / "test.txt").unlink()
    (tmp_path / "set" / "test.txt").symlink_to(tmp_path / "names")
    with pytest.raises(ValueError, match=r"test.txt: a link out of"):
        open_pictures("folder", "test", tmp_path / "set")


def test_a_list_that_is_no_text_is_named(tmp_path):
    (tmp_path / "test.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"test.txt: expected names in UTF-8"):
        read_names(tmp_path / "test.txt")
