"""Curves that are told apart without colour, and figures as files."""

import io
from pathlib import Path

from matplotlib.figure import Figure

from unfoldkit.common.files import write_whole

MARKERS = "os^vDPX<>*"


def save_figure(figure: Figure, path: str | Path, dpi: int = 100) -> None:
    """Write a figure as PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi)
    write_whole(path, content.getvalue())
