"""One HTML page about a prediction, to send."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sthisto._sdata import slots
from sthisto._sdata.keys import ElementKeys
from sthisto._utils.arguments import checked
from sthisto._utils.checks import Check
from sthisto.report.contents import write_report

if TYPE_CHECKING:
    import pandas as pd
    from spatialdata import SpatialData

_FRAME = Check("a DataFrame", lambda value: hasattr(value, "itertuples"))


@checked(alignment=_FRAME)
def report(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    out: str | os.PathLike[str],
    genes: str | Sequence[str] | None = None,
    alignment: pd.DataFrame | None = None,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    key_added: str = slots.KEY,
) -> None:
    """Write one HTML page about a prediction: what was trained on what, scores, maps, doubts, and how to repeat it.

    The file holds its pictures and loads nothing from elsewhere, so that it can be sent and opened anywhere. It shows
    the passport of a model that `tl.assess` assessed before `tl.predict`, and confidence and quality of the image where
    ``obs`` holds them.

    Parameters
    ----------
    sdata
        One SpatialData or a list of them, predicted by `tl.predict`, or with somebody's prediction that `tl.evaluate`
        scored.
    out
        The HTML file; one that exists is replaced.
    genes
        Gene or genes to draw. None: those of the highest, a middle and the lowest score.
    alignment
        What `tl.check_alignment` returned. None: the page has no such part.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    key_added
        The key of the prediction.

    Returns
    -------
    None. Writes the file, whole or not at all; of 20 sections at most maps are drawn, and pictures are made smaller
    until the page stays below 5 MB.

    Raises
    ------
    KeyError
        There is no prediction under `key_added`, or a gene was not predicted.
    ValueError
        No spot has a prediction, or an element is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=3, n_patients=3)
    >>> sth.pp.split(sdata, by="patient", patient_key="patient")
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> sth.tl.evaluate(sdata)
    >>> sth.tl.report(sdata, out="report.html")
    """
    target = Path(out).expanduser()
    command = f"sth.tl.report(sdata, out={target.name!r}, key_added={key_added!r})"
    write_report(
        sdata,
        target,
        keys=ElementKeys(image_key, shapes_key, table_key, coordinate_system),
        key=key_added,
        command=command,
        genes=[genes] if isinstance(genes, str) else None if genes is None else list(genes),
        alignment=alignment,
    )
