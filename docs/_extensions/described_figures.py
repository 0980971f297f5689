"""Figures of the gallery, each with the text that its name gives to those who cannot see it."""

from typing import Any

from matplotlib import pyplot
from sphinx_gallery.scrapers import figure_rst


def described_figures(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save every open figure, `plt.subplots(num="what it shows")`; raises ValueError where that is missing."""
    shown = []
    for number, path in zip(pyplot.get_fignums(), block_vars["image_path_iterator"], strict=False):
        figure = pyplot.figure(number)
        if not figure.get_label():
            raise ValueError(f"{block_vars['src_file']}: a figure needs num=, its text for the blind")
        figure.savefig(path, dpi=160)
        shown.append(figure_rst([path], gallery_conf["src_dir"], figure.get_label()))
    pyplot.close("all")
    return "".join(shown)
