"""Files and other layouts of spatial data, brought to SpatialData; predictions, brought to other tools."""

from __future__ import annotations

from sthisto.io._from_anndata import from_anndata
from sthisto.io._from_wsidata import from_wsidata
from sthisto.io._read import read
from sthisto.io._read_features import read_features
from sthisto.io._read_prediction import read_prediction
from sthisto.io._read_slide import read_slide
from sthisto.io._to_csv import to_csv
from sthisto.io._to_geojson import to_geojson
from sthisto.io._to_ome_tiff import to_ome_tiff

__all__ = [
    "from_anndata",
    "from_wsidata",
    "read",
    "read_features",
    "read_prediction",
    "read_slide",
    "to_csv",
    "to_geojson",
    "to_ome_tiff",
]


def __dir__() -> list[str]:
    return __all__
