"""Plain tables of what `tl` wrote."""

from __future__ import annotations

from sthisto.get._neighbors import neighbours
from sthisto.get._predictions import predictions
from sthisto.get._scores import scores

__all__ = ["neighbours", "predictions", "scores"]
