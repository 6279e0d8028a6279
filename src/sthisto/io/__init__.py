"""Other layouts of spatial data, brought to SpatialData. Readers of raw files are in spatialdata-io."""

from __future__ import annotations

from sthisto.io._from_anndata import from_anndata

__all__ = ["from_anndata"]
