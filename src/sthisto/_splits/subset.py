"""SpatialData that lack what must not be seen: spots that are held out, or the expression of those to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from spatialdata import SpatialData
from spatialdata.models import TableModel

from sthisto._sdata import slots
from sthisto._sdata.tables import layer_names, selection_rule

if TYPE_CHECKING:
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
        (n_spots,) bool for each section: the spots that are here.
    role
        What ``obs["sthisto_split"]`` says of them; None leaves the column out.
    layers
        Layers with expression that `reveal` gives back beside X.
    expression
        False puts zeros in the place of X, and no layer, until `reveal` is called.
    """

    def __init__(
        self,
        cohort: Sequence[SpatialData],
        sections: Sequence[Section],
        chosen: Sequence[np.ndarray],
        *,
        role: str | None = None,
        layers: Sequence[str] = (),
        expression: bool = True,
    ) -> None:
        self._layers = tuple(layers)
        self._rows: list[tuple[AnnData, AnnData, np.ndarray]] = []
        self.sdata: list[SpatialData] = []
        self.names = [section.name for section, mine in zip(sections, chosen, strict=True) if mine.any()]
        self.regions = [section.region for section, mine in zip(sections, chosen, strict=True) if mine.any()]
        for one in cohort:
            members = [
                (section, mine)
                for section, mine in zip(sections, chosen, strict=True)
                if mine.any() and any(section.table is table for table in one.tables.values())
            ]
            if members:
                self._add(one, members, role)
        if expression:
            self.reveal()

    def reveal(self) -> None:
        """Put the measured expression into the tables."""
        for table, source, rows in self._rows:
            if source.X is not None:
                table.X = source.X[rows]
            for layer in self._layers:
                table.layers[layer] = source.layers[layer][rows]

    def of_regions(self, value: Any) -> Any:
        """Return an argument that maps regions to something with the regions that are here alone."""
        if not isinstance(value, Mapping):
            return value
        return {region: one for region, one in value.items() if region in self.regions}

    def _add(self, one: SpatialData, members: Sequence[tuple[Section, np.ndarray]], role: str | None) -> None:
        source, key = members[0][0].table, members[0][0].table_key
        rows = np.concatenate([section.rows[mine] for section, mine in members])
        attrs = dict(source.uns[TableModel.ATTRS_KEY])
        regions = [section.region for section, _ in members]
        obs = source.obs.iloc[rows].drop(columns=slots.SPLIT, errors="ignore").copy()
        region_key = attrs[TableModel.REGION_KEY_KEY]
        obs[region_key] = obs[region_key].astype(str).astype("category")
        if role is not None:
            obs[slots.SPLIT] = role
        chosen = (
            [] if selection_rule(source) == slots.GENES_GIVEN else [slots.SELECTED_GENES]
        )  # on spots that are withheld here
        var = source.var.drop(columns=chosen, errors="ignore").copy()
        blank = sp.csr_matrix((len(rows), source.n_vars), dtype=np.float32)
        table = AnnData(blank, obs=obs, var=var, uns={TableModel.ATTRS_KEY: attrs | {TableModel.REGION_KEY: regions}})
        self.sdata.append(
            SpatialData(
                images=dict(one.images),
                labels=dict(one.labels),
                shapes=dict(one.shapes),
                tables={key: table},
                attrs=dict(one.attrs),
            )
        )
        self._rows.append((table, source, rows))


def expression_layers(tables: Sequence[AnnData], *layers: str | None) -> list[str]:
    """Return the named layers that all tables have; X, which is None, is always there."""
    return [layer for layer in dict.fromkeys(layers) if layer and all(layer in layer_names(one) for one in tables)]
