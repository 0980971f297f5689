"""Frames of video files, a block at a time, and back."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from unfoldkit.common.files import whole_file

VIDEO_ENDINGS = (".avi", ".mp4", ".m4v", ".mov", ".mkv", ".mpg", ".mpeg", ".webm", ".wmv")


def is_video(path: Path) -> bool:
    """Whether the name ends as a video's does."""
    return path.suffix.lower() in VIDEO_ENDINGS


def read_video(path: str | Path, block: int = 200) -> Iterator[np.ndarray]:
    """The frames of a video in grey levels, uint8 (frames, height, width), at most `block` at a time.

    Raises FileNotFoundError where there is no such file, ValueError where no frame of it can be read.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a video")
    video, frames, any_yet = cv2.VideoCapture(str(path)), [], False
    try:
        while True:
            there, frame = video.read()
            if there:
                frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))
            if frames and (not there or len(frames) == block):
                any_yet = True
                yield np.stack(frames)
                frames = []
            if not there:
                break
    finally:
        video.release()
    if not any_yet:
        raise ValueError(f"{path}: not a readable video; expected one of {', '.join(VIDEO_ENDINGS)}")


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
