"""Prediction between the spots of a section, at a finer resolution than was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sthisto._sdata import slots
from sthisto._sdata.features import for_encoder
from sthisto._sdata.inputs import section_input
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.new_shapes import annotating_table, check_no_element, circles
from sthisto._sdata.new_tables import check_no_table, members_of
from sthisto._sdata.record import record_updates
from sthisto._sdata.sections import Section, as_cohort, read_sections
from sthisto._sdata.write import Update, apply
from sthisto._utils.arguments import checked
from sthisto._utils.validate import listed
from sthisto.models import METHODS, ExpressionModel, Prediction
from sthisto.models.given import given_model
from sthisto.models.torch_state import plain_torch
from sthisto.tl._predict import slot_updates

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked()
@plain_torch()
def predict_between(
    sdata: SpatialData | Sequence[SpatialData],
    model: ExpressionModel | str | Path,
    *,
    factor: int = 2,
    new_table_key: str = slots.BETWEEN,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    key_added: str = slots.KEY,
) -> None:
    """Predict between the spots of each section: the super-resolution of HisToGene.

    Each spot is replaced by `factor` x `factor` points around it. Every shift of the lattice is predicted as a section
    of its own, so that the model sees as many spots at the same distances as during training.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    model
        Model from ``tl.fit(sdata, method="histogene")`` or `models.load`, or the path of a saved one.
    factor
        Points along each axis for every spot: 2 gives four points per spot.
    new_table_key
        Name of the new table; its shapes are named ``f"{region}_{new_table_key}"``.
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
    key_added
        Prefix of the slots of the new table.

    Returns
    -------
    None. Writes ``sdata.shapes[f"{region}_{new_table_key}"]``, circles in the coordinate systems of the image, and
    ``sdata.tables[new_table_key]``, which annotates them: X and ``layers["{key_added}_pred"]`` are the prediction,
    (n_points, n_genes), on the scale given by ``uns["{key_added}"]["normalization"]``; ``obs["spot"]`` is the spot that
    a point lies around, whose confidence is in ``obs["{key_added}_confidence"]``.

    Raises
    ------
    TypeError
        The method does not predict between spots.
    KeyError
        An element is missing.
    ValueError
        `factor` is not positive, a new name exists, an element is ambiguous, or a section has a single spot.

    Notes
    -----
    Pang, Su and Li, bioRxiv 2021, doi:10.1101/2021.11.28.470212. Nothing is measured between the spots, so the accuracy
    of these predictions is unknown.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> model = sth.tl.fit(sdata, method="histogene", image_encoder="efficientnet_lite0")  # doctest: +SKIP
    >>> sth.tl.predict_between(sdata, model)  # doctest: +SKIP
    >>> sth.pl.gene_compare(sdata, "COL1A1", table_key="between", show_measured=False)  # doctest: +SKIP
    """
    fitted = given_model(model)
    if not fitted.predicts_between:
        able = listed(name for name, cls in METHODS.items() if cls.predicts_between)
        msg = f"Method {fitted.method!r} does not predict between spots; method={able} does."
        raise TypeError(msg)
    cohort = as_cohort(sdata)
    check_no_table(cohort, new_table_key)
    sections = for_encoder(
        read_sections(sdata, ElementKeys(image_key, shapes_key, table_key, coordinate_system, um_per_px)),
        fitted.encoder if fitted.has_encoder else None,
    )
    members = members_of(cohort, sections)
    for one, own in members:
        names = [slots.shapes_between(section.region, new_table_key) for section in own]
        check_no_element(one, names, argument="new_table_key")
    updates: list[Update] = []
    for one, own in members:
        updates += _updates(one, own, fitted, factor, new_table_key, key_added)
    apply(updates)


def _updates(
    sdata: SpatialData, sections: Sequence[Section], model: ExpressionModel, factor: int, key: str, key_added: str
) -> list[Update]:
    """Return the updates that write the new shapes and the table of one SpatialData."""
    shapes: list[Update] = []
    points_of: dict[str, np.ndarray] = {}
    spots, predictions = [], []
    for section in sections:
        inputs = section_input(section, model.patch)
        fine, coarse = model.predict_between(inputs, factor=factor), model.predict(inputs)
        name = slots.shapes_between(section.region, key)
        points_of[name] = fine.positions
        points = circles(sdata, section.image_key, fine.positions, section.diameter / factor)
        shapes.append(Update(sdata, "shapes", name, points))
        spots.append(section.table.obs_names[section.rows][fine.spot].to_numpy())
        confidence = None if coarse.confidence is None else coarse.confidence[fine.spot]
        predictions.append(Prediction(fine.expression, seen=coarse.seen[fine.spot], confidence=confidence))
    values = np.concatenate([prediction.expression for prediction in predictions])
    table = annotating_table(points_of, values, model.genes, {slots.SPOT: np.concatenate(spots)})
    ends = np.cumsum([len(points) for points in points_of.values()])
    new = [
        replace(section, table=table, table_key=key, region=name, rows=np.arange(end - len(points), end))
        for section, (name, points), end in zip(sections, points_of.items(), ends, strict=True)
    ]
    return [
        *slot_updates(new, predictions, model, key_added=key_added, gene_symbols=None),
        *record_updates(new, model, key_added=key_added, gene_symbols=None, holds_measurement=False, between=factor),
        *shapes,
        Update(sdata, "tables", key, table),
    ]
