"""Predict between the spots of a section: a finer picture than was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from spatialdata.models import ShapesModel, TableModel
from spatialdata.transformations import get_transformation

from sthisto._sdata import slots
from sthisto._sdata.inputs import section_input
from sthisto._sdata.new_tables import check_no_table
from sthisto._sdata.record import record_updates
from sthisto._sdata.sections import Section, as_cohort, read_sections
from sthisto._sdata.write import Update, apply
from sthisto._utils.validate import check_new_name
from sthisto.models import FinePrediction, HisToGene, Prediction
from sthisto.tl._predict import slot_updates

if TYPE_CHECKING:
    from spatialdata import SpatialData


def predict_between(
    sdata: SpatialData | Sequence[SpatialData],
    model: HisToGene,
    *,
    factor: int = 2,
    new_table_key: str = "between",
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    key_added: str = slots.KEY,
) -> None:
    """Predict between the spots of each section: the super-resolution of HisToGene.

    Each spot is replaced by `factor` x `factor` points around it. Every shift of the lattice is predicted as a section
    of its own, so that the model sees as many spots, as far apart, as it was trained on.

    Parameters
    ----------
    sdata
        One SpatialData or a list of them.
    model
        What ``tl.fit(sdata, method="histogene")`` returned, or `models.load` read.
    factor
        Points along each axis for every spot: 2 makes four.
    new_table_key
        Name of the new table, and behind the region's name that of its shapes.
    image_key, shapes_key, table_key, coordinate_system, um_per_px
        As for `tl.predict`.
    key_added
        What the slots of the new table are named after.

    Returns
    -------
    None. Writes ``sdata.shapes[f"{region}_{new_table_key}"]``, circles in the coordinate systems of the image, and
    ``sdata.tables[new_table_key]``, which annotates them: X and ``layers["{key_added}_pred"]`` are the prediction, on
    the scale that ``uns["{key_added}"]["normalization"]`` names; ``obs["spot"]`` is the spot that a point lies around.

    Raises
    ------
    TypeError
        The method does not predict between spots.
    ValueError
        `factor` is not positive, a name is taken, or a section has a single spot.

    Notes
    -----
    Pang, Su and Li, bioRxiv 2021, doi:10.1101/2021.11.28.470212. Nothing was measured between the spots, so nothing
    says how good these predictions are there.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> model = sth.tl.fit(sdata, method="histogene", image_encoder="efficientnet_lite0")  # doctest: +SKIP
    >>> sth.tl.predict_between(sdata, model)  # doctest: +SKIP
    >>> sth.pl.gene_compare(sdata, "COL1A1", table_key="between", show_measured=False)  # doctest: +SKIP
    """
    check_new_name(key_added, name="key_added")
    if not isinstance(model, HisToGene):
        msg = f"Method {model.method!r} does not predict between spots; method='histogene' does."
        raise TypeError(msg)
    cohort = as_cohort(sdata)
    check_no_table(cohort, new_table_key)
    sections = read_sections(
        sdata,
        image_key=image_key,
        shapes_key=shapes_key,
        table_key=table_key,
        coordinate_system=coordinate_system,
        um_per_px=um_per_px,
    )
    owner = [next(one for one in cohort if _holds(one, section)) for section in sections]
    for one, section in zip(owner, sections, strict=True):
        if (name := f"{section.region}_{new_table_key}") in one:
            msg = f"There is an element {name!r} already. Delete it, or choose another new_table_key."
            raise ValueError(msg)
    updates: list[Update] = []
    for one in cohort:
        members = [section for section, holder in zip(sections, owner, strict=True) if holder is one]
        if members:
            updates += _updates(one, members, model, factor, new_table_key, key_added)
    apply(updates)


def _holds(sdata: SpatialData, section: Section) -> bool:
    return any(section.table is table for table in sdata.tables.values())


def _updates(
    sdata: SpatialData, sections: Sequence[Section], model: HisToGene, factor: int, key: str, key_added: str
) -> list[Update]:
    shapes: list[Update] = []
    obs, moved, predictions = [], [], []
    for section in sections:
        inputs = section_input(section, model.patch)
        fine, seen = model.predict_between(inputs, factor=factor), model.predict(inputs).seen
        name = f"{section.region}_{key}"
        shapes.append(Update(sdata, "shapes", name, _circles(sdata, section, fine, factor)))
        obs.append(_observations(section, fine, name))
        predictions.append(Prediction(expression=fine.expression, seen=seen[fine.spot]))
        moved.append((section, name, len(fine.spot)))
    table = _table(obs, predictions, model.genes)
    ends = np.cumsum([n for *_, n in moved])
    new = [
        replace(section, table=table, table_key=key, region=name, rows=np.arange(end - n, end))
        for (section, name, n), end in zip(moved, ends, strict=True)
    ]
    return [
        *slot_updates(new, predictions, model, key_added=key_added, gene_symbols=None),
        *record_updates(new, model, key_added=key_added, gene_symbols=None, holds_measurement=False, between=factor),
        *shapes,
        Update(sdata, "tables", key, table),
    ]


def _circles(sdata: SpatialData, section: Section, fine: FinePrediction, factor: int) -> Any:
    systems = get_transformation(sdata.images[section.image_key], get_all=True)
    return ShapesModel.parse(fine.positions, geometry=0, radius=section.diameter / 2 / factor, transformations=systems)


def _observations(section: Section, fine: FinePrediction, name: str) -> pd.DataFrame:
    spots = section.table.obs_names[section.rows][fine.spot]
    number = np.arange(len(spots))
    return pd.DataFrame(
        {"region": name, "instance": number, "spot": spots.to_numpy()}, index=[f"{name}_{i}" for i in number]
    )


def _table(obs: Sequence[pd.DataFrame], predictions: Sequence[Prediction], genes: Sequence[str]) -> AnnData:
    rows = pd.concat(obs)
    rows["region"] = pd.Categorical(rows["region"])
    x = np.concatenate([prediction.expression for prediction in predictions])
    table = AnnData(x, obs=rows, var=pd.DataFrame(index=pd.Index(list(genes), dtype=str)))
    regions = list(rows["region"].cat.categories)
    return TableModel.parse(table, region=regions, region_key="region", instance_key="instance")
