"""SpatialData without held-out spots, or without the expression of the spots to predict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from sthisto._sdata.new_tables import (
    copy_expression,
    copy_features,
    members_of,
    table_of_spots,
    thin_counts,
    with_table,
)
from sthisto._sdata.tables import has_layer

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from sthisto._sdata.sections import Section


class SpotSubset:
    """Some spots of a cohort in tables of their own, with or without their expression.

    Images and shapes are shared with the cohort, tables are not: what is written stays here.

    Parameters
    ----------
    cohort
        Where the spots come from.
    sections
        Its sections, as `read_sections` returns them.
    chosen
        (n_spots,) bool for each section: the spots of the subset.
    role
        Value of ``obs["sthisto_split"]``. None: the column is left out.
    layers
        Layers with expression that `reveal` restores beside X.
    features
        Slots of ``obsm`` with features that a method is fitted on.
    proportions
        Slots of ``obsm`` with what is learned in place of expression.
    expression
        False: X is zero and there are no layers and no proportions until `reveal` is called.
    """

    def __init__(
        self,
        cohort: Sequence[SpatialData],
        sections: Sequence[Section],
        chosen: Sequence[np.ndarray],
        *,
        role: str | None = None,
        layers: Sequence[str] = (),
        features: Sequence[str] = (),
        proportions: Sequence[str] = (),
        expression: bool = True,
    ) -> None:
        self._layers, self._proportions = tuple(layers), tuple(proportions)
        self._rows: list[tuple[AnnData, AnnData, np.ndarray]] = []
        self.sdata: list[SpatialData] = []
        used = {id(section): spots for section, spots in zip(sections, chosen, strict=True) if spots.any()}
        self.names = [section.name for section in sections if id(section) in used]
        self.regions = [section.region for section in sections if id(section) in used]
        for one, members in members_of(cohort, [section for section in sections if id(section) in used]):
            spots = [used[id(section)] for section in members]
            table, rows = table_of_spots(members, spots, role=role, features=features)
            self.sdata.append(with_table(one, members[0].table_key, table))
            self._rows.append((table, members[0].table, rows))
        if expression:
            self.reveal()

    def reveal(self) -> None:
        """Put the measured expression into the tables."""
        for table, source, rows in self._rows:
            copy_expression(source, rows, table, self._layers)
            copy_features(source, rows, table, self._proportions)

    def thin(self, layer: str | None, share: float, seed: int) -> None:
        """Keep a share of the counts in X or a layer, as if the spots had been sequenced less deeply.

        Raises
        ------
        ValueError
            There are no counts.
        """
        rng = np.random.default_rng(seed)
        for table, _, _ in self._rows:
            thin_counts(table, layer, share, rng)


def expression_layers(tables: Sequence[AnnData], *layers: str | None) -> list[str]:
    """Return the named layers that all tables have, "raw" among them; X, which is None, is always there."""
    return [layer for layer in dict.fromkeys(layers) if layer and all(has_layer(one, layer) for one in tables)]
