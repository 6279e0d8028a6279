"""What a report is about: a prediction, its sections and its scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from sthisto import get
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.predictions import predicted_names, predicted_values
from sthisto._sdata.record import FitRecord, check_predicted, has_record, method_labels, read_record
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.slots import GIVEN, prediction, seen
from sthisto._sdata.tables import layer_names
from sthisto._utils.targets import SET_MEANS
from sthisto.pl._read import is_measured

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

GENES: Final = "genes"


@dataclass(frozen=True, eq=False)
class Subject:
    """A prediction and what the tables say of it.

    Attributes
    ----------
    sdata
        Where it was read from.
    keys
        The elements that were used.
    key
        Key that it is stored under.
    sections
        The sections with a predicted spot.
    record
        What is known of the method.
    label
        What it is called.
    genes
        The predicted genes, sets of genes or cell types.
    scores, summary
        What `tl.evaluate` wrote, as `get.scores` returns it by gene and by section; None where it was not called.
    """

    sdata: SpatialData | Sequence[SpatialData]
    keys: ElementKeys
    key: str
    sections: list[Section]
    record: FitRecord
    label: str
    genes: list[str]
    scores: pd.DataFrame | None
    summary: pd.DataFrame | None

    @property
    def is_given(self) -> bool:
        """Whether the prediction was made elsewhere."""
        return bool(self.record.more.get(GIVEN, False))

    @property
    def what(self) -> str:
        """What is predicted: genes, sets of genes or cell types."""
        scale = self.record.normalization
        if scale is None or not scale.names:
            return GENES
        return "sets of genes" if scale.target == SET_MEANS else "cell types"

    def is_measured(self) -> bool:
        """Return whether expression was measured in any section."""
        scale = self.record.normalization
        return scale is not None and any(is_measured(section, scale) for section in self.sections)

    def predicted_spots(self, section: Section) -> np.ndarray:
        """Return which spots of a section have a prediction, (n_spots,) bool."""
        return np.asarray(np.isfinite(self.values(section)).any(axis=1))

    def values(self, section: Section) -> np.ndarray:
        """Return the prediction of a section, (n_spots, n_genes), NaN where there is none."""
        return _values(section, self.key, self.genes, self.record)

    def column(self, section: Section, name: str) -> pd.Series | None:
        """Return a column of ``obs`` at the spots of a section, None without it."""
        obs = section.table.obs
        return obs[name].iloc[section.rows] if name in obs else None

    def seen_spots(self, section: Section) -> np.ndarray:
        """Return which spots of a section the model was trained on, (n_spots,) bool."""
        column = self.column(section, seen(self.key))
        return np.zeros(len(section), dtype=bool) if column is None else column.to_numpy(dtype=bool)

    def scored_keys(self) -> list[str]:
        """Return the other keys of the tables that have scores."""
        table = self.sections[0].table
        return [
            str(key)
            for key in table.uns
            if key != self.key and has_record(table, str(key)) and "summary" in table.uns[key] and _is_one(table, key)
        ]


def read_subject(sdata: SpatialData | Sequence[SpatialData], keys: ElementKeys, key: str) -> Subject:
    """Return what the tables say of the prediction under a key.

    Raises
    ------
    KeyError
        There is none.
    ValueError
        No spot has a prediction.
    """
    sections = read_sections(sdata, keys)
    for section in sections:
        check_predicted(section.table, key)
    predicted = [one for one in sections if _has_prediction(one, key)]
    if not predicted:
        msg = f"No spot has a prediction under key_added={key!r}. Call sth.tl.predict(sdata, model) first."
        raise ValueError(msg)
    table = predicted[0].table
    record = read_record(table, key)
    is_scored = record.scores is not None
    return Subject(
        sdata,
        keys,
        key,
        predicted,
        record,
        method_labels([table], [key])[key],
        predicted_names(table, key, record.gene_symbols),
        get.scores(sdata, by="gene", key_added=key, table_key=keys.table_key) if is_scored else None,
        get.scores(sdata, by="section", key_added=key, table_key=keys.table_key) if is_scored else None,
    )


def _has_prediction(section: Section, key: str) -> bool:
    record = read_record(section.table, key)
    names = predicted_names(section.table, key, record.gene_symbols)
    return bool(np.isfinite(_values(section, key, names, record)).any())


def _values(section: Section, key: str, names: Sequence[str], record: FitRecord) -> np.ndarray:
    rows, symbols = section.rows, record.gene_symbols
    return predicted_values(section.table, key, prediction(key), names, rows=rows, gene_symbols=symbols)


def _is_one(table: AnnData, key: str) -> bool:
    """Return whether a record is that of one prediction, not of a cross-validation."""
    return prediction(key) in (*layer_names(table), *table.obsm)
