"""Columns of ``obs`` that hold the quality of the image around each spot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sthisto._sdata.slots import BLUR, FOLD, PEN, QUALITY, TISSUE, USABLE
from sthisto._sdata.write import Update, obs_updates, removals

if TYPE_CHECKING:
    from sthisto._images.quality import Quality
    from sthisto._sdata.sections import Section


def quality_columns(found: Quality) -> dict[str, np.ndarray]:
    """Return the column of each measurement, (n_spots,) float32."""
    return {BLUR: found.blur, PEN: found.pen, FOLD: found.fold, TISSUE: found.tissue, QUALITY: found.worst}


def quality_updates(sections: Sequence[Section], found: Sequence[Quality], min_quality: float | None) -> list[Update]:
    """Return the updates that write quality, and whether spots are usable where a least quality is given."""
    columns = [quality_columns(one) for one in found]
    updates = [update for name in columns[0] for update in obs_updates(sections, name, [one[name] for one in columns])]
    if min_quality is None:
        return [*updates, *removals(sections, "obs", [USABLE])]
    usable = [(one.worst >= min_quality).astype(np.float32) for one in found]
    return [*updates, *obs_updates(sections, USABLE, usable)]
