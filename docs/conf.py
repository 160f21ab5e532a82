"""Sphinx configuration: `sphinx-build -W docs build/site` makes the site."""

import os
import sys
from pathlib import Path

import snnjax

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
# Cells share compiled programs, which makes a second build quick.
CACHE = HERE.parent / "build" / "compiled"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

project = "snnjax"
author = "The snnjax developers"
copyright = author
version = release = snnjax.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinxcontrib.bibtex",
    "sphinx_copybutton",
    "figures",
    "intervals",
    "links",
    "reference",
]
exclude_patterns = ["_ext", "_build", "results/**/*.jsonl"]

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE.parent / "build" / "cells")
nb_execution_timeout = 300
# Needs torch; its outputs are in the file (CONTRIBUTING.md says how they are made).
nb_execution_excludepatterns = ["howto/pytorch.ipynb"]
nb_execution_raise_on_error = True
nb_merge_streams = True

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 70
add_module_names = False

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"

html_theme = "sphinx_book_theme"
html_title = "snnjax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_toc_level": 1,
    "show_navbar_depth": 1,
    "max_navbar_depth": 2,
    "collapse_navigation": True,
    "home_page_in_toc": True,
    "navbar_persistent": [],
    "repository_url": "https://github.com/snnjax/snnjax",
    "use_repository_button": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
