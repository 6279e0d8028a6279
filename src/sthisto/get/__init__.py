"""Plain tables of what `tl` wrote."""

from __future__ import annotations

from typing import Any

from sthisto._utils.deprecate import renamed_attribute
from sthisto.get._anndata import anndata
from sthisto.get._neighbors import neighbors
from sthisto.get._passport import passport
from sthisto.get._predictions import predictions
from sthisto.get._scores import scores
from sthisto.get._slides import slides

__all__ = ["anndata", "neighbors", "passport", "predictions", "scores", "slides"]


def __getattr__(name: str) -> Any:
    return renamed_attribute(__name__, name, {"neighbours": "neighbors"}, globals())


def __dir__() -> list[str]:
    return __all__
