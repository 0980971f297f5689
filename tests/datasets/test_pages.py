"""Files of several pictures: all of them, one by one, or a refusal by name; never the first for the whole."""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False

import cv2
import numpy as np
import pytest
from PIL import Image

from unfoldkit.datasets import open_pictures, read_image, read_mask
from unfoldkit.datasets.reading.levels import PictureWarning
from unfoldkit.datasets.reading.picture import page_names, read_pages
from unfoldkit.datasets.reading.video import read_video

RNG = np.random.default_rng(0)
PAGES = RNG.integers(0, 256, (3, 20, 30), dtype=np.uint8)


def several(path):
    pages = [Image.fromarray(page) for page in PAGES]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


@pytest.mark.parametrize("ending", ["tif", "gif", "png"])
def test_pages_are_read_one_by_one_or_refused_together(tmp_path, ending):
    path = several(tmp_path / f"many.{ending}")
    names, found = zip(*read_pages(path), strict=True)
    assert names == ("many_0001", "many_0002", "many_0003") == tuple(page_names(path))
    for graded, page in zip(found, PAGES, strict=True):
        assert np.array_equal(graded.image, page)
    for read in (read_image, read_mask):
        with pytest.raises(ValueError, match=f"many.{ending}: holds several pages or frames"):
            read(path)


@pytest.mark.parametrize("ending", ["tif", "gif", "png", "bmp", "jpg"])
def test_a_file_of_one_picture_is_one_page_of_its_own_name(tmp_path, ending):
    Image.fromarray(PAGES[0]).save(tmp_path / f"one.{ending}")
    [(name, graded)] = read_pages(tmp_path / f"one.{ending}")
    assert [name] == ["one"] == page_names(tmp_path / f"one.{ending}")
    assert np.array_equal(graded.image, read_image(tmp_path / f"one.{ending}"))


def test_pages_of_a_tiff_file_are_counted_without_being_decoded(tmp_path, monkeypatch):
    path = several(tmp_path / "many.tif")
    monkeypatch.delattr(cv2, "imdecode")
    assert len(page_names(path)) == 3


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32", "float64"])
def test_pages_of_every_depth(tmp_path, kind):
    cv2.imwritemulti(str(tmp_path / "deep.tif"), [(page * 10.0).astype(kind) for page in PAGES // 20])
    pages = [graded.image for _, graded in read_pages(tmp_path / "deep.tif", levels=(0, 127.5))]
    for found, page in zip(pages, PAGES // 20, strict=True):
        np.testing.assert_allclose(found, page.astype(float) * 20, atol=1e-3)


@pytest.mark.parametrize("ending", ["tif", "gif", "png"])
def test_pages_that_are_cut_off_are_not_passed_over(tmp_path, ending):
    content = several(tmp_path / f"many.{ending}").read_bytes()
    cut = tmp_path / f"cut.{ending}"
    for length in range(0, len(content) - 60, 50):
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match=f"cut.{ending}: not a readable picture"):
            list(read_pages(cut))


def test_a_smaller_copy_within_a_tiff_is_no_page(tmp_path):
    picture = Image.fromarray(PAGES[0])
    path = tmp_path / "pyramid.tif"
    picture.save(path, save_all=True, append_images=[picture.resize((15, 10))])
    assert len(list(read_pages(path))) == 2
    content = path.read_bytes()
    first = int.from_bytes(content[4:8], "little")
    link = first + 2 + 12 * content[first]  # to the second directory, to which NewSubfileType = 1 is added
    second = int.from_bytes(content[link : link + 4], "little")
    count = content[second]
    entries = content[second + 2 : second + 2 + 12 * count]
    smaller = b"\xfe\x00\x04\x00\x01\x00\x00\x00\x01\x00\x00\x00"
    directory = (count + 1).to_bytes(2, "little") + smaller + entries + bytes(4)
    path.write_bytes(content[:link] + len(content).to_bytes(4, "little") + content[link + 4 :] + directory)
    assert [name for name, _ in read_pages(path)] == ["pyramid"]


@pytest.mark.reference
def test_the_multipage_case(reference_file):
    path = reference_file("cases/vision/levels/multipage_8bit.tif")
    with pytest.raises(ValueError, match="holds several pages"):
        read_image(path)
    with pytest.warns(UserWarning, match="multipage_8bit.tif: page 1: spans 0 %"):
        pages = dict(read_pages(path))
    assert list(pages) == [f"multipage_8bit_{k:04d}" for k in (1, 2, 3)]
    assert not pages["multipage_8bit_0001"].image.any()
    expected = read_image(reference_file("cases/vision/levels/ref_8bit.png"))
    assert np.array_equal(pages["multipage_8bit_0002"].image, expected)


def video(path, frames, code="FFV1"):
    deep = cv2.CV_16U if frames.dtype == np.uint16 else cv2.CV_8U
    options = [cv2.VIDEOWRITER_PROP_DEPTH, deep, cv2.VIDEOWRITER_PROP_IS_COLOR, 0]
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*code), 20, frames.shape[:0:-1], options
    )
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def test_16_bit_video_is_read_at_its_depth_with_the_same_levels_in_all_frames(tmp_path):
    rise = np.linspace(0, 900, 6)[:, None, None] + np.linspace(0, 300, 48)[None, :, None]
    frames = (7000 + np.repeat(rise, 64, axis=2)).astype(np.uint16)
    path = video(tmp_path / "raw.avi", frames)
    found = np.concatenate(list(read_video(path, block=4)))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (frames - 7000.0) / 1200 * 255, atol=3)
    given = np.concatenate(list(read_video(path, levels=(7000, 9550))))
    np.testing.assert_allclose(given, (frames - 7000.0) / 10, atol=1e-3)


def test_8_bit_video_is_kept(tmp_path):
    frames = np.repeat(np.arange(40, 100, 10, np.uint8)[:, None, None], 64 * 48, 1).reshape(6, 48, 64)
    found = np.concatenate(list(read_video(video(tmp_path / "a.avi", frames, "MJPG"), block=4)))
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - frames).max() <= 2


@pytest.mark.parametrize(("kind", "bits"), [("420p10", 10), ("444p12", 12), ("420jpeg", 8)])
def test_deeper_colour_video_is_named_and_read_at_8_bits(tmp_path, recwarn, kind, bits):
    path, shrink = tmp_path / "colour.mkv", 1 if kind == "444p12" else 2
    level = np.uint8 if bits == 8 else np.dtype("<u2")
    bright, grey = np.full((24, 32), 90 << (bits - 8), level), 1 << (bits - 1)
    chroma = np.full((2, 24 // shrink, 32 // shrink), grey, level)
    frame = b"FRAME\n" + bright.tobytes() + chroma.tobytes()
    path.write_bytes(f"YUV4MPEG2 W32 H24 F25:1 C{kind} XYSCSS={kind.upper()}\n".encode() + 3 * frame)
    found = np.concatenate(list(read_video(path)))
    assert (found.shape, found.dtype) == ((3, 24, 32), np.uint8)
    assert np.abs(found - (90 - 16) * 255 / (235 - 16)).max() < 5
    said = [str(warning.message) for warning in recwarn if warning.category is PictureWarning]
    assert said == ([f"{path}: colour of more than 8 bits a channel is read at 8"] if bits > 8 else [])


@pytest.mark.reference
def test_the_video_cases(reference_file):
    deep = np.concatenate(list(read_video(reference_file("cases/vision/video/ffv1_16bit.avi"))))
    assert deep.shape == (6, 96, 128)
    assert len(np.unique(deep)) > 10  # of which five are left at 8 bits
    assert deep.max() - deep.min() == 255
    assert sum(map(len, read_video(reference_file("cases/vision/video/grey_mjpg.avi")))) == 12
    frames = read_video(reference_file("cases/vision/video/trunc.avi"), block=1)
    assert all(next(frames).shape == (1, 96, 128) for _ in range(6))
    with pytest.raises(ValueError, match=r"trunc.avi: ends after 6 of 12 frames"):
        next(frames)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
def test_picture_and_mask_turn_alike(tmp_path, orientation, ending):
    levels = np.zeros((24, 40), np.uint8)
    levels[2:10, 4:8] = 255
    turned = Image.Exif()
    turned[274] = orientation
    for part in ("images", "masks"):
        (tmp_path / "test" / part).mkdir(parents=True)
        options = {"tiffinfo": {274: orientation}} if ending == "tif" else {"exif": turned}
        Image.fromarray(levels).save(tmp_path / "test" / part / f"a.{ending}", **options)
    picture = open_pictures("folder", "test", tmp_path)[0]
    assert picture.image.shape == ((40, 24) if orientation > 4 else (24, 40))
    assert np.array_equal(picture.image > 127, picture.mask > 0.5)
    corner = {1: (2, 4), 2: (2, 32), 3: (14, 32), 4: (14, 4), 5: (4, 2), 6: (4, 14), 7: (32, 14), 8: (32, 2)}
    assert tuple(np.argwhere(picture.image > 127).min(0)) == corner[orientation]


@pytest.mark.reference
def test_the_exif_case(reference_file):
    image = read_image(reference_file("cases/vision/exif/i3.png")).astype(float)
    mask = read_mask(reference_file("cases/vision/exif/m3.png"))
    assert np.argwhere(mask).mean(0).tolist() == [51.5, 11.5]
    assert image[mask > 0].mean() > image.mean() + 3 * image.std()


@pytest.mark.parametrize("block", [0, -1])
def test_a_block_of_no_frames_is_refused(tmp_path, block):
    with pytest.raises(ValueError, match=f"block must be at least 1, got {block}"):
        next(read_video(tmp_path / "video.avi", block))
