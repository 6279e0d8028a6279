"""Predictions as a table of text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.predicted import PredictedSection, read_predicted
from sthisto._sdata.slots import KEY
from sthisto._utils.arguments import checked
from sthisto._utils.atomic import atomic_file

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked()
def to_csv(
    sdata: SpatialData | Sequence[SpatialData],
    path: str | os.PathLike[str],
    *,
    genes: str | Sequence[str] | None = None,
    key_added: str = KEY,
    table_key: str | None = None,
) -> None:
    """Write the predicted expression of every spot, with its place, to a file of text.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    path
        File. What it ends with says how: ".csv", ".tsv", either with ".gz".
    genes
        Gene or genes to write. None: all that the method predicts.
    key_added
        Key that `sthisto.tl.predict` wrote to.
    table_key
        Table with the prediction. None: inferred if exactly one table annotates a region.

    Returns
    -------
    None. Writes a row for each spot that has a prediction: "spot", "section", "x_px" and "y_px" in px of the image's
    full resolution, "x_um" and "y_um" where the µm per px are known, "confidence" where the method has one, and a
    column for each gene, on the scale that ``uns[key_added]["normalization"]`` names.

    Raises
    ------
    KeyError
        There is no prediction under the key, or a gene is not modeled.
    ValueError
        The name of the file ends otherwise, or the table is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> sth.io.to_csv(sdata, "predicted.csv.gz", genes=["COL1A1"])
    """
    target = Path(path).expanduser()
    plain = target.with_suffix("") if target.suffix.lower() == ".gz" else target
    if plain.suffix.lower() not in (".csv", ".tsv"):
        msg = f"`path` must end with '.csv' or '.tsv', with or without '.gz', found {target.name!r}."
        raise ValueError(msg)
    found = read_predicted(sdata, ElementKeys(table_key=table_key), key_added, genes)
    table = pd.concat([_rows(one) for one in found], ignore_index=True)
    compression = "gzip" if plain != target else None
    with atomic_file(target) as staged:
        table.to_csv(staged, sep="\t" if plain.suffix.lower() == ".tsv" else ",", index=False, compression=compression)


def _rows(one: PredictedSection) -> pd.DataFrame:
    x, y = one.section.centers.T
    columns = {"spot": one.names.to_numpy(), "section": one.section.name, "x_px": x, "y_px": y}
    um = one.section.um_per_px
    if um is not None:
        columns |= {"x_um": x * um, "y_um": y * um}
    if one.confidence is not None:
        columns["confidence"] = one.confidence
    return pd.concat([pd.DataFrame(columns), pd.DataFrame(one.values, columns=list(one.genes))], axis=1)
