"""Whether places of predicted spots are those of the measured ones: not swapped, not in another unit, not shifted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.spatial import KDTree

from sthisto._utils.logging import logger

if TYPE_CHECKING:
    from sthisto._sdata.sections import Section

_NEARLY_ALL: Final = 0.99
_ANOTHER: Final = 0.95
_BETTER: Final = 0.02
_CLOSER: Final = 0.05
_LEAST: Final = 0.5
"""Share of the spots of either side above which places need no second look; that another reading must reach, how much
more than as they are, and by how many pitches its distances may be longer; and below which places are refused. A grid
that another tool laid over the tissue fits neither way, and is scored with a warning."""


@dataclass(frozen=True)
class _Fit:
    """How well predicted places lie on measured ones.

    Attributes
    ----------
    measured, predicted
        Share of the measured spots with a predicted one within half a pitch, and of the predicted ones that are such.
    distance
        Median distance of these in px.
    """

    measured: float
    predicted: float
    distance: float

    @property
    def both(self) -> float:
        """Share of the side that fits better: a prediction may have fewer spots than were measured, or more."""
        return max(self.measured, self.predicted)


def check_places(section: Section, xy: np.ndarray, pitch: float) -> None:
    """Check that places of predicted spots, (n, 2) in px, are those of a section's spots.

    Where spots are left over on both sides, a warning says so: a prediction of fewer spots, or of more, leaves none
    over on one side.

    Raises
    ------
    ValueError
        They fit better with x and y swapped, in µm, or shifted; or fewer than half of either side fit.
    """
    found = _fit(section.centers, xy, pitch)
    if not found.measured or found.both >= _NEARLY_ALL:
        return
    for what, moved in _readings(section, xy):
        other = _fit(section.centers, moved, pitch)
        is_closer = other.distance <= found.distance + _CLOSER * pitch
        if is_closer and other.both >= max(_ANOTHER, found.both + _BETTER) and other.measured > found.measured:
            raise ValueError(_refusal(section, found, f"{other.measured:.0%} do if {what}"))
    if found.both < _LEAST:
        raise ValueError(_refusal(section, found, "they seem to be of another unit, image or section"))
    logger.warning(
        "Predicted spots lie elsewhere than those of section %r: %.0f %% of the measured ones have a predicted one "
        "within half a pitch, and %.0f %% of the predicted ones a measured one. Check that obsm['spatial'] is x and y "
        "in px of the full resolution.",
        section.name,
        100 * found.measured,
        100 * found.predicted,
    )


def _fit(centers: np.ndarray, xy: np.ndarray, pitch: float) -> _Fit:
    distance, nearest = KDTree(xy).query(centers)
    is_near = distance <= pitch / 2
    if not is_near.any():
        return _Fit(0.0, 0.0, np.inf)
    n_used = len(np.unique(nearest[is_near]))
    return _Fit(float(is_near.mean()), n_used / len(xy), float(np.median(distance[is_near])))


def _readings(section: Section, xy: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield other readings of the places, (n, 2): what would have to be the case, and the places in px then."""
    yield "x and y are swapped", xy[:, ::-1]
    if section.um_per_px is not None:
        yield "they are in µm", xy / section.um_per_px
        yield "they are in µm and x and y are swapped", xy[:, ::-1] / section.um_per_px
    shift = np.median(section.centers, axis=0) - np.median(xy, axis=0)
    yield f"they are shifted by {shift[0]:.4g}, {shift[1]:.4g} px", xy + shift


def _refusal(section: Section, found: _Fit, reason: str) -> str:
    return (
        f"The places of the predicted spots are not those of section {section.name!r}: {found.measured:.0%} of its "
        f"spots have a predicted one within half a pitch, and {reason}. Put x and y in px of the image's full "
        "resolution into obsm['spatial'], or name the spots alike."
    )
