"""Predictions of many slides as one AnnData of slides and genes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sthisto._sdata.slide_summaries import slides_anndata, statistic, stores_of, summarize_slides, summarize_store
from sthisto._sdata.slots import KEY
from sthisto._utils.arguments import check, checked
from sthisto._utils.checks import path, texts

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked(how=texts)
def slides(
    sdata: SpatialData | Sequence[SpatialData] | str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    how: str | Sequence[str] = ("mean", "q90"),
    key_added: str = KEY,
    table_key: str | None = None,
) -> AnnData:
    """Return one row for each slide: its predicted expression summed up over the spots.

    For survival analysis, or differential expression between patients.

    Parameters
    ----------
    sdata
        The folder that `sthisto.cohort.predict` wrote, of which slides that are done are read; a store or a list of
        them, which are read one after the other; or SpatialData in memory. Each region that a table annotates is a
        slide.
    how
        Statistics over the spots: "mean", "median", "sd", and "q90" for the quantile at 90 %, or another number.
    key_added
        Key that `sthisto.tl.predict` wrote to.
    table_key
        Table with the prediction. None: inferred if exactly one table has one.

    Returns
    -------
    An AnnData (n_slides, n_genes). X is the first of `how`, and ``layers`` has each of them under its name, float32, on
    the scale of the predictions. ``obs`` holds "n_spots", the mean "confidence" of methods that have one, and the
    columns that have one value for all spots of a slide, such as the patient. A slide is named by its store, or its
    region, or "store:region" where a store has several. Spots without a prediction are left out.

    Raises
    ------
    FileNotFoundError
        There is no store.
    KeyError
        A store has no prediction under the key.
    ValueError
        There is no such statistic, slides were predicted for different genes, or two have one name.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_spots=60)
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> slides = sth.get.slides(sdata, how=("mean", "q90"))
    >>> slides.obs["patient"].tolist()
    ['P1', 'P2', 'P3']
    """
    names = [how] if isinstance(how, str) else list(dict.fromkeys(how))
    for name in names:
        statistic(name)
    given: list[Any] = list(sdata) if isinstance(sdata, Sequence) and not isinstance(sdata, str) else [sdata]
    if all(isinstance(one, str | os.PathLike) for one in given):
        for one in given:
            check(one, path, name="sdata")
        stores = stores_of(sdata if isinstance(sdata, str | os.PathLike) else given)
        found = [slide for store in stores for slide in summarize_store(store, names, key_added, table_key)]
    else:
        found = [slide for one in given for slide in summarize_slides(one, names, key_added, table_key)]
    return slides_anndata(found, names)
