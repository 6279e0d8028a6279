"""Whether the spots lie where their expression was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from sthisto._scoring.alignment import (
    Agreement,
    FeatureMap,
    Search,
    expression_components,
    foreign_places,
    own_places,
    search,
)
from sthisto._scoring.image_features import feature_map, pitch_of
from sthisto._sdata.expression import looks_like_counts
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.tables import read_rows
from sthisto._utils.arguments import checked

if TYPE_CHECKING:
    from spatialdata import SpatialData

_LEAST_Z: Final = 5.0
_LEAST_GAIN: Final = 2.5
_SAME_PLACE: Final = 0.76
"""Pitches within which two placements count as one: the search has steps of a quarter."""
_FEWEST_SPOTS: Final = 40
_MOST_SPOTS: Final = 2000
ALIGNED, MISALIGNED, SWAPPED, UNKNOWN = "aligned", "misaligned", "swapped", "cannot tell"


@checked()
def check_alignment(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    layer: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Check whether spots and image of each section belong together, and find shifts, turns, mirrors and swaps.

    If spots lie in the right place, color and texture under them agree better with their expression than anywhere
    else. The agreement is measured as they lie, shifted by up to three pitches, and in the eight orientations of the
    square all over the tissue; and with the images of the other sections.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    layer
        Layer with counts. None: X. Values that are no counts are taken as they are.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    um_per_px
        µm per px of the images' full resolution, or a mapping from region to it. None: taken from the data where it is
        known.

    Returns
    -------
    One row per section; nothing is written:

    - section, n_spots
    - verdict: "aligned", "misaligned", "swapped", or "cannot tell" where nothing stands out: the signal is too weak.
    - z: how many standard deviations the agreement as the spots lie is above that of placements at random.
    - best_z: the same of the best placement.
    - turn, mirrored: the best placement mirrors the spots left to right about the middle of their bounding box, then
      turns them by these degrees clockwise.
    - shift_x_um, shift_y_um, shift_um: then it shifts them by this, in steps of a quarter of a pitch; NaN where the µm
      per px are unknown. shift_x_px, shift_y_px: the same in px of the full resolution.
    - image_of: the section on whose image the spots fit, another one where they are swapped; "" where unknown.

    Raises
    ------
    KeyError
        An element is missing.
    ValueError
        An element is ambiguous.

    Notes
    -----
    Expression is ten principal components of Pearson residuals, texture is measured in windows of 110 µm. Both are
    taken relative to their neighborhood of 3.2 pitches, since anything smooth agrees a little with anything smooth.
    Ridge regression from one to the other is cross-validated over spatial blocks. A section is "misaligned" if the best
    placement has a z-score of 5 or more, more than 0.76 pitches from where the spots lie, and 2.5 more than there.
    How often it is wrong on true sections, and how often it finds what was planted, is printed by
    ``python benchmarks/alignment.py``. Of more than 2000 spots, the 2000 in the middle are used. The image is read
    once.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=1, n_patients=1, n_spots=80)
    >>> sth.tl.check_alignment(sdata)[["section", "verdict"]]
        section  verdict
    0  S1_spots  aligned
    """
    keys = ElementKeys(image_key, shapes_key, table_key, coordinate_system, um_per_px)
    sections = read_sections(sdata, keys)
    maps = [feature_map(section) if _has_pitch(section) else None for section in sections]
    agreements = [_agreement(section, layer) for section in sections]
    rows = []
    for i, section in enumerate(sections):
        own, features = agreements[i], maps[i]
        found = None
        if own is not None and features is not None:
            size = section.image.width, section.image.height
            found = search(own, features, own_places(own, features, size))
        elsewhere = _elsewhere(i, sections, maps, own)
        rows.append(_row(section, found, elsewhere))
    return pd.DataFrame(rows)


def _has_pitch(section: Section) -> bool:
    """Return whether spots lie side by side: neither one alone nor all in one place."""
    return 0 < pitch_of(section) < np.inf


def _agreement(section: Section, layer: str | None) -> Agreement | None:
    """Return what scores the placements of a section's spots; None where there are too few."""
    away = np.linalg.norm(section.centers - np.median(section.centers, axis=0), axis=1)
    spots = np.sort(np.argsort(away, kind="stable")[:_MOST_SPOTS])
    counts = read_rows(section, layer, spots)
    filled = np.asarray(abs(counts).sum(axis=1)).ravel() > 0
    if filled.sum() < _FEWEST_SPOTS or not _has_pitch(section):
        return None
    spots, counts = spots[filled], counts[np.flatnonzero(filled)]
    components = expression_components(counts, are_counts=looks_like_counts(counts))
    return Agreement(section.centers[spots], components, pitch_of(section))


def _elsewhere(
    number: int, sections: Sequence[Section], maps: Sequence[FeatureMap | None], own: Agreement | None
) -> tuple[str, float]:
    """Return the other section whose image fits best, and its z-score."""
    best = ("", -np.inf)
    for other, (section, features) in enumerate(zip(sections, maps, strict=True)):
        if other == number or features is None or own is None:
            continue
        known = sections[number].um_per_px, section.um_per_px
        scale = known[0] / known[1] if known[0] and known[1] else 1.0
        fitted = own.scaled(scale)
        found = search(fitted, features, foreign_places(fitted, features))
        if found is not None and found.best_z > best[1]:
            best = (section.name, found.best_z)
    return best


def _row(section: Section, found: Search | None, elsewhere: tuple[str, float]) -> dict[str, Any]:
    verdict = _verdict(section, found, elsewhere)
    place = found.best if found is not None and verdict in (ALIGNED, MISALIGNED) else None
    shift = place.shift if place is not None else np.full(2, np.nan)
    um = section.um_per_px or np.nan
    image_of = {SWAPPED: elsewhere[0], UNKNOWN: ""}.get(verdict, section.name)
    return {
        "section": section.name,
        "n_spots": len(section),
        "verdict": verdict,
        "z": found.z if found is not None else np.nan,
        "best_z": found.best_z if found is not None else np.nan,
        "turn": place.turn if place is not None else np.nan,
        "mirrored": place.mirrored if place is not None else False,
        "shift_x_um": shift[0] * um,
        "shift_y_um": shift[1] * um,
        "shift_um": float(np.linalg.norm(shift)) * um,
        "shift_x_px": shift[0],
        "shift_y_px": shift[1],
        "image_of": image_of,
    }


def _verdict(section: Section, found: Search | None, elsewhere: tuple[str, float]) -> str:
    own = found.best_z if found is not None else -np.inf
    if elsewhere[1] >= max(_LEAST_Z, own + _LEAST_GAIN):
        return SWAPPED
    if found is None or own < _LEAST_Z:
        return UNKNOWN
    is_here = found.best.moves_only and np.linalg.norm(found.best.shift) <= _SAME_PLACE * pitch_of(section)
    if is_here:
        return ALIGNED
    return MISALIGNED if own >= found.z + _LEAST_GAIN else UNKNOWN
