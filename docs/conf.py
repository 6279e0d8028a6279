"""How sphinx builds the documentation: `sphinx-build -W --keep-going -b html docs docs/_build/html`."""

from __future__ import annotations

import os
import shutil
import sys
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

# The tutorials are shown with the outputs that they are kept with; sphinx finds them only below this folder.
shutil.copytree(Path(__file__).parents[1] / "tutorials", Path(__file__).parent / "tutorials", dirs_exist_ok=True)

project = "sthisto"
author = "the sthisto developers"
copyright = author  # noqa: A001
version = release = metadata.version("sthisto")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "prose_returns",
]

# The inventories of other projects are fetched, so links to them are made only where the network is allowed.
if os.environ.get("STHISTO_DOCS_INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "pandas": ("https://pandas.pydata.org/docs", None),
        "anndata": ("https://anndata.readthedocs.io/en/stable", None),
        "spatialdata": ("https://spatialdata.scverse.org/en/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

templates_path = ["_templates"]
exclude_patterns = ["_build", "ecosystem", "jupyter_execute", "**.ipynb_checkpoints"]
default_role = "py:obj"
root_doc = "index"

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = os.environ.get("STHISTO_DOCS_EXECUTION", "force")
nb_execution_excludepatterns = ["tutorials/*"]
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "remove"
if nb_execution_mode == "off":
    suppress_warnings = ["myst-nb.lexer"]

html_theme = "sphinx_book_theme"
html_title = "sthisto"
html_static_path = ["_static"]
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
}
