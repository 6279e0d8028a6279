"""Predictions as an AnnData for scanpy and squidpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.predicted import predicted_anndata, read_predicted
from sthisto._sdata.slots import KEY
from sthisto._utils.arguments import checked

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@checked()
def anndata(
    sdata: SpatialData | Sequence[SpatialData],
    genes: str | Sequence[str] | None = None,
    *,
    key_added: str = KEY,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
) -> AnnData:
    """Return the predicted expression as an AnnData that scanpy and squidpy take as they are.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    genes
        Gene or genes to return. None: all that the method predicts.
    key_added
        Key that `sthisto.tl.predict` wrote to.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table with the prediction. None: inferred if exactly one table annotates a region.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    um_per_px
        µm per px of the images' full resolution, or a mapping from region to it. None: taken from the data where it is
        known.

    Returns
    -------
    An AnnData of the spots that have a prediction and of the genes that are modeled. X is the prediction, float32
    without NaN, on the scale that ``uns[key_added]["normalization"]`` of the table names; ``layers["sd"]`` its spread
    where the method has one. ``obs`` holds the columns of the table, "confidence" and "seen" of the prediction, and
    "library_id", the section. ``obsm["spatial"]`` holds x and y in px of the image's full resolution, and
    ``uns["spatial"][library_id]`` an overview of the image with its scale factor, as for Visium.

    Raises
    ------
    KeyError
        There is no prediction under the key, or a gene is not modeled.
    ValueError
        An element is ambiguous, or sections were predicted for different genes.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> adata = sth.get.anndata(sdata)
    >>> adata.obsm["spatial"].shape == (adata.n_obs, 2)
    True
    """
    keys = ElementKeys(image_key, shapes_key, table_key, coordinate_system, um_per_px)
    return predicted_anndata(read_predicted(sdata, keys, key_added, genes))
