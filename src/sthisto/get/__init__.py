"""Plain tables of what `tl` wrote."""

from __future__ import annotations

from sthisto.get._neighbors import neighbors
from sthisto.get._predictions import predictions
from sthisto.get._scores import scores

__all__ = ["neighbors", "predictions", "scores"]
