"""Frames of video files, a block at a time, and back."""

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: what cannot be read is said in an error, once

import cv2
import numpy as np

from unfoldkit.common.files import whole_file

from .levels import Levels, PictureWarning, grade

SAMPLES = 8  # frames from which the levels of a deep video are taken
COUNTED = (".avi", ".mp4", ".m4v", ".mov")  # files that say how many frames they hold
APART, TOGETHER = (b"Y3", b"Y4", b"G3", b"G4"), (b"RGB", b"BGR", b"RBA", b"BRA")  # colour in FFmpeg's names
VIDEO_ENDINGS = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".wmv")


def is_video(path: Path) -> bool:
    """Whether the name ends as a video's does; hidden files are none."""
    return not path.name.startswith(".") and path.suffix.lower() in VIDEO_ENDINGS


def read_video(path: str | Path, block: int = 200, levels: Levels | None = None) -> Iterator[np.ndarray]:
    """The frames of a video in grey levels of 0 to 255, (frames, height, width), at most `block` at a time.

    Frames of 8 bits a channel are uint8, of 16-bit grey float32. Deeper colour is read at 8 bits, which a
    `PictureWarning` says. `levels` decides which levels become 0 and 255, see `grade`: the same ones in all
    frames, "percentile" from SAMPLES of them (`video_levels`).

    Raises FileNotFoundError where there is no such file; ValueError for a block of less than one frame, where no
    frame of it can be read, where its frames hold grey of a depth that cannot be read without loss, and, after its
    last frame, where these are fewer than the file says.
    """
    if block < 1:
        raise ValueError(f"block must be at least 1, got {block}")
    chosen = video_levels(path, levels)
    count = 0
    frames: list[np.ndarray] = []
    with opened(path) as video:
        announced = video.get(cv2.CAP_PROP_FRAME_COUNT)
        if _is_deep_colour(video):
            said = f"{path}: colour of more than 8 bits a channel is read at 8"
            warnings.warn(said, PictureWarning, stacklevel=2)
        while (frame := next_frame(video)) is not None:
            count += 1
            frames.append(frame)
            if frame.shape != frames[0].shape:
                raise ValueError(f"{path}: frame {count} is of another size than those before it")
            if len(frames) == block:
                yield grade(np.stack(frames), chosen).image
                frames = []
    if frames:
        yield grade(np.stack(frames), chosen).image
    if count < announced - slack(path, announced):
        raise ValueError(f"{path}: ends after {count} of {announced:.0f} frames; expected a whole video")


def video_levels(path: str | Path, levels: Levels | None = None) -> Levels:
    """What `levels` come to for all frames of a video, in `grade`'s terms: "full" or two numbers; raises as above.

    None is "full" for 8 bits and for 16 bits that fill their range, else "percentile", which is taken over SAMPLES
    frames, evenly spaced.
    """
    with opened(path) as video:
        sample = [next_frame(video)]
        if sample[0] is None:
            raise ValueError(f"{path}: not a readable video; expected one of {', '.join(VIDEO_ENDINGS)}")
        if isinstance(levels, tuple) or levels == "full" or (levels is None and sample[0].dtype == np.uint8):
            return levels or "full"
        for k in range(1, SAMPLES):
            video.set(cv2.CAP_PROP_POS_FRAMES, k * video.get(cv2.CAP_PROP_FRAME_COUNT) // SAMPLES)
            sample.append(next_frame(video))
    graded = grade(np.stack([frame for frame in sample if frame is not None]), levels)
    return "full" if graded.levels == "full" else (graded.low, graded.high)


@contextmanager
def opened(path: str | Path) -> Iterator[cv2.VideoCapture]:
    """A video, to be read at its own depth; raises FileNotFoundError or ValueError, which name it."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a video")
    video = cv2.VideoCapture(str(path))
    try:
        deep = _deep_grey(video)
        if deep == "16-bit":
            video.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        elif deep:
            raise ValueError(f"{path}: {deep} grey frames cannot be read without loss; expected 8 or 16 bits")
        yield video
    finally:
        video.release()


def next_frame(video: cv2.VideoCapture) -> np.ndarray | None:
    """The next frame in grey, as deep as it is stored; None at the end."""
    there, frame = video.read()
    if not there:
        return None
    return frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)


def slack(path: str | Path, announced: float) -> float:
    """How many frames a whole video may lack of those announced, where that is only guessed from its length."""
    return 0 if Path(path).suffix.lower() in COUNTED else 1 + announced / 20


def _deep_grey(video: cv2.VideoCapture) -> str:
    """How deep the frames are where they are grey of more than 8 bits, by FFmpeg's name of their format."""
    name = _format(video)
    if name.startswith(b"Y1\0"):
        return f"{name[3]}-bit"
    return f"{name[0]}-bit big-endian" if name.endswith(b"\x001Y") else ""


def _is_deep_colour(video: cv2.VideoCapture) -> bool:
    """Whether the frames are colour of more than 8 bits a channel, by FFmpeg's name of their format.

    Its last byte is the bits of a channel where channels lie apart (Y3, G3), of a pixel where they do not (RGB);
    that of the other byte order is spelled backwards.
    """
    name = _format(video)
    return name in (b"P010", b"P016") or any(
        (spelled[:2] in APART and 8 < spelled[3] <= 16)
        or (spelled[:3] in TOGETHER and spelled[3] in (48, 64))
        for spelled in (name, name[::-1])
    )


def _format(video: cv2.VideoCapture) -> bytes:
    return int(video.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)).to_bytes(8, "little", signed=True)[:4]


def frame_rate(path: str | Path) -> float:
    """Frames a second as the file says, or 25 where it says none."""
    rate = _property(path, cv2.CAP_PROP_FPS)
    return rate if rate > 0 else 25.0


def _holds(path: Path, count: int) -> bool:
    """Whether the last of `count` frames can be read."""
    video = cv2.VideoCapture(str(path))
    video.set(cv2.CAP_PROP_POS_FRAMES, count - 1)
    there = video.read()[0] and video.get(cv2.CAP_PROP_POS_FRAMES) == count
    video.release()
    return there


def _property(path: str | Path, which: int) -> float:
    video = cv2.VideoCapture(str(path))
    value = video.get(which)
    video.release()
    return value


@contextmanager
def video_file(path: Path, rate: float, shape: tuple[int, int]) -> Iterator[Callable[[np.ndarray], None]]:
    """A function that appends frames, uint8 (frames, height, width), to a Motion-JPEG video (.avi) of grey frames.

    `shape` is (height, width). The file is there whole at the end of the block, or not at all. Raises ValueError
    where no such video can be made, OSError where not all of it could be written.
    """
    height, width = shape
    code = cv2.VideoWriter.fourcc(*"MJPG")
    with whole_file(path, ".avi") as draft:
        writer = cv2.VideoWriter(str(draft), code, rate, (width, height), isColor=False)
        if not writer.isOpened():
            raise ValueError(f"{path}: cannot be written as a video of {width}x{height} pixels")
        count = 0

        def append(frames: np.ndarray) -> None:
            nonlocal count
            for frame in frames:
                writer.write(np.ascontiguousarray(frame))
            count += len(frames)

        try:
            yield append
        finally:
            writer.release()
        if count and not _holds(draft, count):  # OpenCV says nothing of a full disk
            raise OSError(errno.ENOSPC, f"not all of {count} frames are in the file", str(draft))
