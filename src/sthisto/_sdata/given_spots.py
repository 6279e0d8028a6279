"""Spots of a prediction found among those that were measured: by instance, by name, or by the nearest place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.spatial import KDTree
from spatialdata.models import TableModel

from sthisto._images.pitch import median_pitch
from sthisto._sdata.given_places import check_places
from sthisto._utils.logging import logger
from sthisto._utils.validate import listed

if TYPE_CHECKING:
    from sthisto._sdata.sections import Section


@dataclass(frozen=True)
class GivenSpots:
    """The spots of a prediction.

    Attributes
    ----------
    names
        (n_spots,) names.
    section
        (n_spots,) names of their sections, None where nothing says so.
    xy
        (n_spots, 2) places in px of the full resolution, None where unknown.
    instances
        (n_spots,) (region, instance) of a table that annotates the same shapes, None for others.
    """

    names: pd.Index
    section: np.ndarray | None
    xy: np.ndarray | None
    instances: pd.MultiIndex | None


def match_spots(sections: Sequence[Section], spots: GivenSpots) -> list[np.ndarray]:
    """Return for each section the row of the prediction at each of its spots, -1 where it has none.

    Spots of a table that annotates the same shapes are matched by instance. Else they are matched by name, or, where no
    name of a section is known, to the nearest predicted spot within half the section's pitch. Names that are numbers
    give way to places.

    Raises
    ------
    ValueError
        No spot is matched, a name repeats in the prediction, or nothing tells the spots of several sections apart; the
        places fit better with x and y swapped, in µm or shifted, or most do not fit; or numbers that name the spots
        are counted from another first one.
    """
    rows, distances = [], []
    _check_sections(sections, spots)
    for section in sections:
        candidates = np.arange(len(spots.names))
        if spots.section is not None:
            candidates = np.flatnonzero(np.isin(spots.section, [section.name, section.region]))
        found, distance = _match(section, spots, candidates)
        rows.append(found)
        distances.append(distance)
        if missing := int((found < 0).sum()):
            logger.warning(
                "%d of %d spots of section %r have no prediction: they stay NaN.", missing, len(section), section.name
            )
    if not any((found >= 0).any() for found in rows):
        raise ValueError(_none_matched(sections, spots, distances))
    return rows


def _match(section: Section, spots: GivenSpots, candidates: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the prediction's row at each spot, (n_spots,), -1 for none, and how far off compared places are."""
    if spots.instances is not None and len(candidates):
        attrs = section.table.uns[TableModel.ATTRS_KEY]
        instances = section.table.obs[attrs[TableModel.INSTANCE_KEY]].to_numpy()[section.rows]
        wanted = pd.MultiIndex.from_arrays([[section.region] * len(section), instances])
        found = _by_index(wanted, spots.instances[candidates], candidates)
        if (found >= 0).any():
            return found, ""
    names = section.table.obs_names[section.rows].astype(str)
    found, distance = np.full(len(section), -1), ""
    if not len(candidates):
        return found, distance
    has_places_alone = spots.xy is not None and _are_numbers(spots.names)
    if not has_places_alone:
        found = _by_name(section, names, spots.names[candidates], candidates)
    if spots.xy is not None and not (found >= 0).any():
        found, distance = _by_place(section, spots.xy, candidates)
    if has_places_alone and not (found >= 0).any():
        found = _by_name(section, names, spots.names[candidates], candidates)
    if spots.xy is None:
        _check_numbers(section, spots.names[candidates])
    return found, distance


def _by_name(section: Section, names: pd.Index, known: pd.Index, candidates: np.ndarray) -> np.ndarray:
    """Return the candidate of each of the section's spots by its name, -1 without one.

    Raises
    ------
    ValueError
        A name repeats, on either side.
    """
    found = _by_index(names, known, candidates)
    if (repeated := names[(found >= 0) & names.duplicated()].unique()).size:
        msg = (
            f"Several spots of section {section.name!r} are named {listed(repeated, 5)}: which one a predicted spot of "
            "that name is, is unknown. Make the names unique (table.obs_names_make_unique()) and name the predicted "
            "ones likewise."
        )
        raise ValueError(msg)
    return found


def _by_index(wanted: pd.Index, known: pd.Index, candidates: np.ndarray) -> np.ndarray:
    """Return the candidate of each wanted name, (n_wanted,), -1 without one."""
    needed = known.isin(wanted)
    if (repeated := known[needed][known[needed].duplicated()].unique()).size:
        msg = f"The prediction has several rows for the spots {listed(repeated, 5)}. Keep one of each."
        raise ValueError(msg)
    at = pd.Index(known[needed]).get_indexer(wanted)
    return np.where(at >= 0, candidates[needed][at] if needed.any() else -1, -1)


def _by_place(section: Section, xy: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, str]:
    known = candidates[np.isfinite(xy[candidates]).all(axis=1)]
    if not len(known):
        return np.full(len(section), -1), ""
    half = _pitch(section) / 2
    distance, nearest = KDTree(xy[known]).query(section.centers)
    found = np.where(distance <= half, known[nearest], -1)
    _check_once(section, found, known, xy)
    check_places(section, xy[known], 2 * half)
    return found, f"{np.median(distance):.4g} px away in {section.name!r}, where half a pitch is {half:.4g} px"


def _check_once(section: Section, found: np.ndarray, known: np.ndarray, xy: np.ndarray) -> None:
    """Raise ValueError where several predicted spots have one place, (n, 2), so that it is unclear which is meant."""
    _, place, count = np.unique(xy[known], axis=0, return_inverse=True, return_counts=True)
    repeated = known[count[place.ravel()] > 1]
    if len(same := np.intersect1d(repeated, found)):
        msg = (
            f"The prediction has several rows at one place of section {section.name!r}, for example x, y = "
            f"{xy[same[0]].tolist()}. Keep one of each, or name the section of every spot in obs['section']."
        )
        raise ValueError(msg)


def _pitch(section: Section) -> float:
    """Return the usual distance in px from a spot to the nearest other one; of a single spot, its width."""
    if len(section) < 2:
        return section.diameter
    return median_pitch(section.centers)


def _are_numbers(names: pd.Index) -> bool:
    """Return whether names are numbers, as AnnData, pandas and R number rows without names."""
    return bool(names.str.fullmatch(r"\d+").all())


def _check_numbers(section: Section, names: pd.Index) -> None:
    """Raise ValueError where spots are numbered, but not by the measured numbers: all could be one off."""
    measured = section.table.obs_names[section.rows].astype(str)
    if not (len(names) == len(measured) and _are_numbers(names) and _are_numbers(measured)):
        return
    first, last = (f"{one.astype(int).min()} to {one.astype(int).max()}" for one in (names, measured))
    if first != last and names.isin(measured).any():
        msg = (
            f"The predicted spots are numbered {first} and those of section {section.name!r} {last}, so that a spot "
            "may stand for another one. Number them alike, or put x and y in px of the image's full resolution into "
            "obsm['spatial']."
        )
        raise ValueError(msg)


def _check_sections(sections: Sequence[Section], spots: GivenSpots) -> None:
    """Raise ValueError where several sections could claim the same predicted spots."""
    if len(sections) < 2 or spots.section is not None or spots.instances is not None:
        return
    names = pd.Index(np.concatenate([one.table.obs_names[one.rows].astype(str) for one in sections]))
    by_name = spots.names.isin(names).any() and not (spots.xy is not None and _are_numbers(spots.names))
    if by_name and names.is_unique:
        return
    if not by_name and spots.xy is None:
        return
    why = "their names repeat" if by_name else "they have places alone"
    msg = (
        f"Nothing tells the predicted spots of {len(sections)} sections apart: {why}. Name the section of every spot "
        f"in obs['section']: {listed(section.name for section in sections)}. Or pass shapes_key=… for one section."
    )
    raise ValueError(msg)


def _none_matched(sections: Sequence[Section], spots: GivenSpots, distances: Sequence[str]) -> str:
    measured = sections[0].table.obs_names[sections[0].rows]
    away = [text for text in distances if text]
    places = (
        f"The nearest predicted spots are {away[0]}: obsm['spatial'] must be x and y in px of the full resolution."
        if away
        else "Name them alike, or put x and y in px of the image's full resolution into obsm['spatial']."
    )
    return (
        f"No predicted spot is one that was measured. Predicted: {listed(spots.names, 3)}; measured: "
        f"{listed(measured, 3)}. {places}"
    )
