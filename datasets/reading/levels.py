"""From the levels that a file holds, of any depth, to grey levels of 0 to 255."""

from typing import Literal, NamedTuple

import numpy as np

Levels = Literal["full", "percentile"] | tuple[float, float]
PERCENTILES = (1, 99)
NARROW = 0.05  # share of the range below which a picture is named


class PictureWarning(UserWarning):
    """Said of a picture that can be read, and hardly be meant as it is; the message is one line that names it."""


class Graded(NamedTuple):
    """Grey levels and where they come from.

    image: (height, width) of 0 to 255, uint8 or float32.  low, high: the file's levels that became 0 and 255.
    levels: how these two were chosen, "full", "percentile" or "given".
    """

    image: np.ndarray
    low: float
    high: float
    levels: str


def grade(raw: np.ndarray, levels: Levels | None = None) -> Graded:
    """Grey levels of `raw`, (height, width) or (frames, height, width) of any real dtype.

        grey = 255 (raw - low) / (high - low), clipped to 0..255

    levels: "full" takes low and high as the ends of the dtype's range (0 and 1 of floats): 8 bits stay as they
    are, 16 bits are divided by 257. "percentile" takes them from the picture (`limits`): raw thermal data fills a
    few hundred of 65,536 levels. (low, high) is taken as given, to see several pictures alike. None is "full" for
    8 bits and for 16 bits that fill their range (`fills`), else "percentile".
    Levels that are no number become 0.

    Raises ValueError where `raw` is of another shape or kind, where no level is a number, where low is not below
    high, for another word, and where "full" is asked of floats beyond 0..1.

    >>> grade(np.array([[7300, 7400], [7800, 8200]], np.uint16)).image.round().tolist()
    [[0.0, 28.0], [142.0, 255.0]]
    >>> grade(np.array([[10.0, 25.0]]), (10, 40)).image.tolist()
    [[0.0, 127.5]]
    """
    if raw.ndim not in (2, 3) or raw.dtype.kind not in "iuf" or not raw.size:
        raise ValueError(f"raw must be real, (height, width), got {raw.dtype} of shape {raw.shape}")
    if levels is None:
        levels = "full" if raw.dtype == np.uint8 or fills(raw) else "percentile"
    if isinstance(levels, str) and levels not in ("full", "percentile"):
        raise ValueError(f"levels must be full, percentile or two numbers, got {levels!r}")
    if levels == "full" and raw.dtype in (np.uint8, np.uint16):
        image = raw if raw.dtype == np.uint8 else raw.astype(np.float32) / 257
        return Graded(image, 0, float(np.iinfo(raw.dtype).max), "full")
    choice = levels if isinstance(levels, str) else "given"
    low, high = _ends(raw) if levels == "full" else limits(raw) if levels == "percentile" else levels
    if levels == "percentile" and low == high:
        high = low + 1  # one level alone is black
    if not -np.inf < low < high < np.inf:
        raise ValueError(f"levels must be two numbers, the lower first, got {low} and {high}")
    known = np.nan_to_num(raw.astype(np.float64), copy=False, nan=low, posinf=high, neginf=low)
    image = (255 * ((known - low) / (high - low)).clip(0, 1)).astype(np.float32)
    return Graded(image, float(low), float(high), choice)


def levels_of(text: str | None) -> Levels | None:
    """`Levels` as they are typed: full, percentile, or LOW,HIGH.

    Raises ValueError for anything else.

    >>> levels_of("7300,8200"), levels_of("full"), levels_of(None)
    ((7300.0, 8200.0), 'full', None)
    """
    if text is None:
        return None
    if text == "full":
        return "full"
    if text == "percentile":
        return "percentile"
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"levels must be full, percentile or LOW,HIGH, got {text!r}") from None
    if not -np.inf < low < high < np.inf:
        raise ValueError(f"levels must be two numbers, the lower first, got {text!r}")
    return low, high


def limits(raw: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest level of a picture, robustly.

    They are the percentiles 1 and 99, widened to what every pixel of some block of 2x2 reaches, and from there to
    the extremes, as far as these lie within half the span: so a dead or a hot pixel decides little, and the peak
    of a target of a few pixels is not cut off.

    Raises ValueError where no level is a number.
    """
    known = _numbers(raw)
    low, high = (float(level) for level in np.percentile(known, PERCENTILES))
    lowest, highest = reach(raw if known is raw else np.nan_to_num(raw, nan=low, posinf=high, neginf=low))
    low, high = min(low, lowest), max(high, highest)
    margin = (high - low) / 2
    return max(float(known.min()), low - margin), min(float(known.max()), high + margin)


def reach(raw: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest level that every pixel of some block of 2x2 stays below, and above."""
    if min(raw.shape[-2:]) < 2:
        return float(raw.min()), float(raw.max())
    most, least = np.maximum(raw[..., 1:, :], raw[..., :-1, :]), np.minimum(raw[..., 1:, :], raw[..., :-1, :])
    lowest = np.maximum(most[..., 1:], most[..., :-1]).min()
    highest = np.minimum(least[..., 1:], least[..., :-1]).max()
    return float(lowest), float(highest)


def fills(raw: np.ndarray) -> bool:
    """Whether 16-bit levels fill their range: they span half of it, or are 8 bits, repeated or shifted."""
    if raw.dtype != np.uint16:
        return False
    if not (raw % 257).any() or not (raw % 256).any():
        return True
    low, high = limits(raw)
    return high - low >= 2**15


def narrow(image: np.ndarray) -> str:
    """What to say of grey levels that span under 5 % of 0..255; nothing where they span more."""
    low, high = reach(image)
    share = (high - low) / 255
    if share >= NARROW:
        return ""
    low, high = limits(image)
    share = (high - low) / 255
    return f"spans {100 * share:.2g} % of its range of levels" if share < NARROW else ""


def _ends(raw: np.ndarray) -> tuple[float, float]:
    """The ends of the range of a dtype."""
    if raw.dtype.kind in "iu":
        return float(np.iinfo(raw.dtype).min), float(np.iinfo(raw.dtype).max)
    known = _numbers(raw)
    if known.min() < 0 or known.max() > 1:
        raise ValueError(
            f"levels full needs integers, or floats of 0 to 1; found {known.min():g} to {known.max():g}"
        )
    return 0.0, 1.0


def _numbers(raw: np.ndarray) -> np.ndarray:
    """The levels that are finite: `raw` itself where all are; raises ValueError where none is."""
    finite = np.isfinite(raw)
    if finite.all() and raw.size:
        return raw
    if not finite.any():
        raise ValueError("none of its levels is a number")
    return raw[finite]
