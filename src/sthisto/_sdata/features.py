"""Features of spots that were computed elsewhere and stand in ``obsm``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sthisto._sdata.sections import Section
from sthisto._sdata.slots import FEATURES
from sthisto._utils.logging import logger
from sthisto._utils.validate import listed
from sthisto.models.encoders.given import PREFIX, GivenFeatures, GivenPart

if TYPE_CHECKING:
    from anndata import AnnData

    from sthisto.models import Encoder

_MOST_APART: Final = 1.1


@dataclass(frozen=True)
class TableFeatures:
    """Reads features of some rows of a table, (n_spots,), by their slot of ``obsm``."""

    table: AnnData
    rows: np.ndarray

    def __call__(self, key: str) -> np.ndarray:
        """Return (n_spots, n_features) float32.

        Raises
        ------
        KeyError
            There is no such slot.
        ValueError
            It holds something else than real numbers.
        """
        if key not in self.table.obsm:
            msg = (
                f"The table has no features obsm[{key!r}]; it has: {listed(self.table.obsm)}. Read them with "
                "sthisto.pp.add_features."
            )
            raise KeyError(msg)
        stored = self.table.obsm[key]
        dense = stored.toarray() if hasattr(stored, "toarray") else np.asarray(stored)
        values: np.ndarray = dense.reshape(len(dense), -1)[self.rows]
        try:
            if values.dtype.kind not in "cmM":  # numpy would cast them without a word
                return values.astype(np.float32)
            why = f"they are of {values.dtype}"
        except (TypeError, ValueError) as error:
            why = str(error)
        msg = f"obsm[{key!r}] holds features that are no numbers: {why}. Keep the columns of features alone."
        raise ValueError(msg)

    def names(self, key: str) -> list[str]:
        """Return the names of the features, empty where they have none."""
        return [str(name) for name in getattr(self.table.obsm[key], "columns", [])]


def feature_keys(features: str | Sequence[str]) -> list[str]:
    """Return the slots of ``obsm`` that "obsm:KEY" names.

    Raises
    ------
    ValueError
        A name does not begin with "obsm:", or none is given.
    """
    named = [features] if isinstance(features, str) else list(features)
    keys = [name.removeprefix(PREFIX) for name in named if name.startswith(PREFIX)]
    if len(keys) < len(named) or not keys:
        msg = f"`features` names slots of obsm, as 'obsm:X_uni2', found {features!r}."
        raise ValueError(msg)
    return keys


def with_features(sections: Sequence[Section], keys: Sequence[str]) -> list[Section]:
    """Return the sections without the spots whose features are missing, with a warning.

    Raises
    ------
    ValueError
        No spot of a section has features.
    """
    kept = []
    for section in sections:
        read = TableFeatures(section.table, section.rows)
        known = np.all([np.isfinite(read(key)).all(axis=1) for key in keys], axis=0)
        if not known.any():
            msg = f"No spot of section {section.name!r} has the features {listed(keys)}: all are NaN."
            raise ValueError(msg)
        if not known.all():
            logger.warning(
                "%d of %d spots of section %r have no features (%s): they are left out.",
                (~known).sum(),
                len(known),
                section.name,
                listed(keys),
            )
            section = replace(section, rows=section.rows[known], centers=section.centers[known])
        kept.append(section)
    return kept


def for_encoder(sections: Sequence[Section], encoder: Encoder | None) -> list[Section]:
    """Return the sections as a model with that encoder takes them.

    Raises
    ------
    ValueError
        The model's features were given, and those of a section are of another width.
    """
    if not isinstance(encoder, GivenFeatures):
        return list(sections)
    kept = with_features(sections, [part.key for part in encoder.parts])
    for section in kept:
        for part in encoder.parts:
            width = width_of(section.table, part.key)
            if width and part.width_um and not 1 / _MOST_APART < width / part.width_um < _MOST_APART:
                msg = (
                    f"obsm[{part.key!r}] of section {section.name!r} is of tiles {width:.4g} µm wide; the model was "
                    f"fitted on tiles of {part.width_um:.4g} µm. Compute the features at the same width."
                )
                raise ValueError(msg)
    return kept


def given_features(sections: Sequence[Section], rows: Sequence[np.ndarray], keys: Sequence[str]) -> GivenFeatures:
    """Return what takes the place of the encoder; of several parts, each varies alike in total.

    Parameters
    ----------
    sections
        Those that are trained on.
    rows
        (n_train,) positions of the training spots of each.
    keys
        Slots of ``obsm``.

    Raises
    ------
    ValueError
        Sections differ in the number, the names or the width of the features.
    """
    parts = []
    for key in keys:
        values = [TableFeatures(one.table, one.rows)(key)[own] for one, own in zip(sections, rows, strict=True)]
        numbers = sorted({one.shape[1] for one in values})
        widths = {round(width, 1) for one in sections if (width := width_of(one.table, key))}
        if len(numbers) > 1 or (widths and max(widths) / min(widths) > _MOST_APART):
            msg = f"obsm[{key!r}] differs between sections: {numbers} columns, of tiles {sorted(widths)} µm wide."
            raise ValueError(msg)
        _check_names_of_features(sections, key)
        total = float(np.concatenate(values).astype(np.float64).var(axis=0).sum())
        weight = 1.0 if len(keys) == 1 or total == 0 else 1 / np.sqrt(total)
        parts.append(GivenPart(key, numbers[0], next(iter(widths), None), float(weight)))
    return GivenFeatures(parts)


def _check_names_of_features(sections: Sequence[Section], key: str) -> None:
    """Raise ValueError where features have names that differ between sections, or stand in another order."""
    names = [TableFeatures(section.table, section.rows).names(key) for section in sections]
    named = [i for i, own in enumerate(names) if own]
    for i in named[1:]:
        if names[i] != names[named[0]]:
            msg = (
                f"The columns of obsm[{key!r}] of section {sections[i].name!r} are not those of section "
                f"{sections[named[0]].name!r}, or stand in another order. Order them alike in every table."
            )
            raise ValueError(msg)


def width_of(table: AnnData, key: str) -> float | None:
    """Return the width in µm of the tiles that features are of, None where it is unknown."""
    record: Mapping[str, Any] = table.uns.get(FEATURES, {}).get(key, {})
    width = float(record.get("width_um", float("nan")))
    return width if np.isfinite(width) else None
