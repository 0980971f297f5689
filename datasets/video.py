"""Frames of video files, a block at a time, and back."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

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
    video = cv2.VideoCapture(str(path))
    rate = video.get(cv2.CAP_PROP_FPS)
    video.release()
    return rate if rate > 0 else 25.0


class VideoFile:
    """A Motion-JPEG video (.avi) of grey frames, to be used in a `with` statement."""

    def __init__(self, path: Path, rate: float, shape: tuple[int, int]) -> None:
        height, width = shape
        code = cv2.VideoWriter.fourcc(*"MJPG")
        self.writer = cv2.VideoWriter(str(path), code, rate, (width, height), isColor=False)
        if not self.writer.isOpened():
            raise ValueError(f"{path}: cannot be written as a video of {width}x{height} pixels")

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.release()

    def write(self, frames: np.ndarray) -> None:
        """Append frames, uint8 (frames, height, width)."""
        for frame in frames:
            self.writer.write(np.ascontiguousarray(frame))
