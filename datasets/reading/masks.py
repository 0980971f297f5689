"""Masks: the levels of a label, which of them are object, and masks that cannot be meant as they are."""

from typing import Literal, get_args

import numpy as np

ObjectLevel = Literal["maximum", "half", "any"]
MOST_CLASSES = 20


def labels_of(levels: np.ndarray) -> np.ndarray:
    """Levels of any dtype as shares of the largest: uint8 where these are 0 and 1 alone, else float32.

    What is no number or below 0 counts as 0.

    >>> labels_of(np.array([0, 255])), labels_of(np.array([0, 1, 2]))
    (array([0, 1], dtype=uint8), array([0. , 0.5, 1. ], dtype=float32))
    """
    levels = np.nan_to_num(levels, posinf=1)
    largest = levels.max()
    if not largest > 0:
        return np.zeros(levels.shape, np.uint8)
    if ((levels == 0) | (levels == largest)).all():
        return (levels > 0).astype(np.uint8)
    return (levels.clip(0) / largest).astype(np.float32)


def classes(levels: np.ndarray) -> list[int]:
    """The numbers above 0 in a mask that seems to number classes, several whole ones up to 20; else none.

    >>> classes(np.array([0, 1, 3], np.uint8)), classes(np.array([0, 1, 255], np.uint8)), classes(np.array([0, 1]))
    ([1, 3], [], [])
    """
    if levels.dtype.kind not in "iu" or levels.max() > MOST_CLASSES:
        return []
    found: list[int] = np.unique(levels[levels > 0]).tolist()
    return found if len(found) > 1 else []


def objects(labels: np.ndarray, object_level: ObjectLevel = "half") -> np.ndarray:
    """Which pixels of `labels`, shares of a mask's largest level, are object: uint8 of 0 and 1.

    object_level: "maximum", the largest level alone, which is what the papers' protocol counts on infrared sets
    (mask / max(mask) truncated to an integer); "half", what exceeds half of it, which mends a mask that JPEG or a
    resize has blurred; "any", what exceeds 0, for classes numbered from 1. Of a two-level mask all are the same.

    Raises ValueError for another `object_level`.

    >>> labels = np.array([0, 0.1, 0.6, 1])
    >>> [objects(labels, level).tolist() for level in ("maximum", "half", "any")]
    [[0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 1]]
    """
    if object_level not in get_args(ObjectLevel):
        raise ValueError(
            f"object_level must be one of {', '.join(get_args(ObjectLevel))}, got {object_level!r}"
        )
    if object_level == "maximum":
        return (labels >= 1).astype(np.uint8)
    return (labels > (0.5 if object_level == "half" else 0)).astype(np.uint8)
