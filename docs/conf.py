"""How the site is built: `make docs`. Nothing is fetched; what the pages need lies in the site."""

import logging
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_extensions")]

from unfoldkit import __version__  # noqa: E402

# The gallery shows what its scripts print, and nothing of the libraries beneath them.
for name in ("lightning.pytorch.utilities.rank_zero", "onnx_ir", "onnxscript"):
    logging.getLogger(name).setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning|torch|copyreg")

project = "unfoldkit"
author = "the maintainers of unfoldkit"
copyright = "the maintainers of unfoldkit, MIT licence"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
    "sphinx_copybutton",
    "api_pages",
    "plain_docstrings",
    "mathml",
]
exclude_patterns = ["gallery", "_extensions"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4

# One page for each, in this order, with every name of its __all__ and those that its docstrings speak of besides.
api_packages = {
    "unfoldkit.rpcanet": ["unfoldkit.rpcanet.networks.unfolding.UnfoldedNetwork"],
    "unfoldkit.rpcanet.modules": [],
    "unfoldkit.rpcanet.metrics": [],
    "unfoldkit.rpcanet.classical": [],
    "unfoldkit.sbl": [
        "unfoldkit.sbl.em.loop.ExpectationMaximisation",
        "unfoldkit.sbl.em.bound.BoundMinimisation",
        "unfoldkit.sbl.estimate.Ended",
    ],
    "unfoldkit.sbl.systems": [],
    "unfoldkit.sbl.simulation.metrics": [],
    "unfoldkit.kernels": [],
    "unfoldkit.datasets": [],
}
maximum_signature_line_length = 88
autodoc_typehints_format = "short"
autodoc_mock_imports = [] if find_spec("sionna") else ["sionna"]
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True

sphinx_gallery_conf = {
    "examples_dirs": str(HERE / "gallery"),
    "gallery_dirs": "auto_gallery",
    "filename_pattern": "/",
    "subsection_order": [f"gallery/{room}" for room in ("segmentation", "channels", "kernels")],
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("described_figures.described_figures",),
    "matplotlib_animations": False,
    "abort_on_example_error": True,
    "write_computation_times": False,
    "remove_config_comments": True,
    "show_signature": False,
    "show_memory": False,
}

html_theme = "furo"
html_title = f"unfoldkit {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
html_math_renderer = "mathml"
