"""Curves that are told apart without colour, and figures as pixels and as files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from .files import write_whole

MARKERS = "os^vDPX<>*"


def rendered(figure: Figure, dpi: int = 100) -> np.ndarray:
    """The pixels of a figure, (height, width, 3) uint8.

    >>> rendered(Figure(figsize=(3, 2)), dpi=50).shape
    (100, 150, 3)
    """
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def line_style(k: int, count: int) -> dict[str, Any]:
    """Colours from dark to light, and a marker of its own."""
    colour = colormaps["cividis"](0.9 * k / max(1, count - 1))
    return {"color": colour, "marker": MARKERS[k % len(MARKERS)], "markersize": 4, "linewidth": 1.2}


def save_figure(figure: Figure, path: str | Path, dpi: int = 100) -> None:
    """Write a figure as PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi)
    write_whole(path, content.getvalue())


def save_pixels(pixels: np.ndarray, path: str | Path) -> None:
    """Write pixels (height, width, 3) uint8 as PNG, whole or not at all."""
    content = io.BytesIO()
    imsave(content, pixels, format="png")
    write_whole(path, content.getvalue())
