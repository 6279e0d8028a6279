"""The training spots that predictions were retrieved from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.sections import Section, read_sections
from sthisto._utils.arguments import checked
from sthisto._utils.validate import listed

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthisto.models import ExpressionModel
    from sthisto.models.data import Exclude


@checked()
def neighbors(
    sdata: SpatialData | Sequence[SpatialData],
    model: ExpressionModel | str | Path,
    *,
    exclude: Exclude | None = None,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Return the training spots that each spot's prediction is retrieved from, with their cosine similarities.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    model
        Fitted model of a method that retrieves training spots, such as "danet" or "knn", or the path of a saved one.
    exclude
        Training spots that a spot may not retrieve, as for `sthisto.tl.predict`.
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
    One row per spot and rank: section, spot (its name in the table), rank (0 is the nearest), training_section,
    training_spot (its position among the spots of that section), cosine.

    Raises
    ------
    TypeError
        The method does not retrieve training spots.
    KeyError
        An element is missing.
    ValueError
        An element is ambiguous, or every training spot is excluded.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> model = sth.tl.fit(sdata, method="knn", image_encoder="efficientnet_lite0")  # doctest: +SKIP
    >>> sth.get.neighbors(sdata, model).head()  # doctest: +SKIP
    """
    from sthisto._sdata.features import for_encoder
    from sthisto.models.given import given_model

    fitted = given_model(model)
    sections = for_encoder(
        read_sections(sdata, ElementKeys(image_key, shapes_key, table_key, coordinate_system, um_per_px)),
        fitted.encoder if fitted.has_encoder else None,
    )
    return pd.concat([of_section(section, fitted, exclude) for section in sections], ignore_index=True)


def of_section(section: Section, model: ExpressionModel, exclude: Exclude | None) -> pd.DataFrame:
    """Return the rows of `neighbors` for one section; raise TypeError for a method that retrieves no spots."""
    if not model.retrieves:
        msg = (
            f"Method {model.method!r} predicts without retrieving training spots, so a spot has no neighbors. "
            f"Methods that do: {listed(_retrieving())}."
        )
        raise TypeError(msg)
    from sthisto._sdata.inputs import section_input

    found = model.neighbors(section_input(section, model.patch), exclude=exclude)
    found = found.rename(columns={"section": "training_section"})
    found["spot"] = section.table.obs_names[section.rows][found["spot"]]
    found.insert(0, "section", section.name)
    return found[["section", "spot", "rank", "training_section", "training_spot", "cosine"]]


def _retrieving() -> list[str]:
    from sthisto.models import METHODS

    return [name for name, method in METHODS.items() if method.retrieves]
