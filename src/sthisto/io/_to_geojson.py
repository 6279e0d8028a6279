"""Predictions as objects with measurements for QuPath."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import shapely

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.outlines import outlines
from sthisto._sdata.predicted import only_section, read_predicted
from sthisto._sdata.slots import KEY
from sthisto._utils.arguments import checked
from sthisto._utils.atomic import atomic_file
from sthisto._utils.checks import text
from sthisto._utils.validate import check_choice

if TYPE_CHECKING:
    from spatialdata import SpatialData

_OBJECTS: Final = ("detection", "annotation", "cell")


@checked(section=text)
def to_geojson(
    sdata: SpatialData | Sequence[SpatialData],
    path: str | os.PathLike[str],
    *,
    genes: str | Sequence[str] | None = None,
    section: str | None = None,
    object_type: str = "detection",
    key_added: str = KEY,
    table_key: str | None = None,
) -> None:
    """Write the spots of a section with their predicted expression as GeoJSON, which QuPath opens on the slide.

    In QuPath, open the slide that the section was read from and drop the file onto it; "Measure", "Show measurement
    maps" then colors the spots by a gene.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    path
        File to write, commonly "….geojson".
    genes
        Gene or genes to write. None: all that the method predicts.
    section
        Name of the section. None: the only one that has a prediction; a file is for one image.
    object_type
        What spots are in QuPath: "detection", many of which QuPath draws fast, "annotation" or "cell".
    key_added
        Key that `sthisto.tl.predict` wrote to.
    table_key
        Table with the prediction. None: inferred if exactly one table annotates a region.

    Returns
    -------
    None. Writes a FeatureCollection: circles of the width of a spot, or the polygons of cells, in px of the image's
    full resolution, each with a measurement for each gene and "confidence" where the method has one.

    Raises
    ------
    KeyError
        There is no prediction under the key, or no such gene or section.
    ValueError
        Several sections have a prediction and none is named, or the table is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> sth.io.to_geojson(sdata, "S1.geojson", genes=["COL1A1"], section="S1_spots")
    """
    check_choice(object_type, _OBJECTS, name="object_type")
    one = only_section(read_predicted(sdata, ElementKeys(table_key=table_key), key_added, genes), section)
    shapes = [json.loads(text) for text in shapely.to_geojson(outlines(sdata, one.section))]
    values = np.round(one.values.astype(float), 5)
    features: list[dict[str, Any]] = []
    for i, (name, shape) in enumerate(zip(one.names, shapes, strict=True)):
        measurements = dict(zip(one.genes, values[i].tolist(), strict=True))
        if one.confidence is not None and np.isfinite(one.confidence[i]):
            measurements["confidence"] = round(float(one.confidence[i]), 5)
        about = {"objectType": object_type, "name": str(name), "measurements": measurements}
        features.append({"type": "Feature", "geometry": shape, "properties": about})
    with atomic_file(Path(path).expanduser()) as staged:
        staged.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
