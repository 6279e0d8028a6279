"""How sphinx builds the documentation: `sphinx-build -W --keep-going -b html docs docs/_build/html`."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError
from urllib.request import Request, urlopen

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
# Pages draw inline whatever backend the caller chose: with "Agg" they would have no pictures.
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"

project = "sthisto"
author = "the sthisto developers"
copyright = author  # noqa: A001
version = release = metadata.version("sthisto")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "constants",
    "linked_pages",
    "prose_returns",
]

INVENTORIES = {
    "python": "https://docs.python.org/3",
    "numpy": "https://numpy.org/doc/stable",
    "pandas": "https://pandas.pydata.org/docs",
    "anndata": "https://anndata.readthedocs.io/en/stable",
    "scanpy": "https://scanpy.readthedocs.io/en/stable",
    "spatialdata": "https://spatialdata.scverse.org/en/stable",
    "matplotlib": "https://matplotlib.org/stable",
    "torch": "https://docs.pytorch.org/docs/stable",
}


def reachable(url: str) -> bool:
    """Whether an inventory can be fetched: one that cannot would fail a build with -W."""
    try:
        with urlopen(Request(f"{url}/objects.inv", method="HEAD"), timeout=5) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False


# Links into other projects need their inventories; without a network, pages are built without these links.
if os.environ.get("STHISTO_DOCS_INTERSPHINX", "1") != "0":
    with ThreadPoolExecutor(len(INVENTORIES)) as pool:
        found = dict(zip(INVENTORIES, pool.map(reachable, INVENTORIES.values()), strict=True))
    intersphinx_mapping = {name: (url, None) for name, url in INVENTORIES.items() if found[name]}

templates_path = ["_templates"]
exclude_patterns = ["_build", "ecosystem", "figures", "jupyter_execute", "**.ipynb_checkpoints"]
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

html_theme = "sphinx_book_theme"
html_title = "sthisto"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_extra_path = ["llms.txt"]
html_logo = "_static/logo.svg"
html_favicon = "_static/favicon.svg"
html_theme_options = {
    "logo": {"alt_text": "sthisto"},
    "navbar_persistent": [],  # the sidebar has the search already
    "use_download_button": False,
    "use_fullscreen_button": False,
    "show_toc_level": 2,
}


def setup(app: Sphinx) -> None:
    app.connect("config-inited", allow_pages_without_kernel)


def allow_pages_without_kernel(app: Sphinx, config: Config) -> None:
    """Cells that are not executed have no kernel that could name their lexer."""
    if config.nb_execution_mode == "off":
        config.suppress_warnings.append("myst-nb.lexer")
