"""AnnData with spots and images in its slots, as scanpy and squidpy read Visium, to SpatialData."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from sthisto._sdata.resolution import um_per_px_of_visium
from sthisto._sdata.slots import KEY, UM_PER_UNIT
from sthisto._utils.validate import check_key, check_positive, listed
from sthisto.io._image import image_element, read_pixels

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

REGION_KEY = "sthisto_region"
INSTANCE_KEY = "sthisto_instance"
_DEFAULT_LIBRARY = "section"

Image: TypeAlias = "str | Path | np.ndarray | Any"


@dataclass(frozen=True)
class _Library:
    """One library of `uns["spatial"]` and its rows of the table."""

    name: str
    rows: np.ndarray
    images: Mapping[str, np.ndarray]
    scalefactors: Mapping[str, float]


def from_anndata(
    adata: AnnData,
    *,
    image: Image | Mapping[str, Image] = "hires",
    library_key: str | None = None,
    library_id: str | Sequence[str] | None = None,
    spot_diameter: float | None = None,
    spatial_key: str = "spatial",
    table_key: str = "table",
) -> SpatialData:
    """Turn an AnnData with ``obsm["spatial"]`` and ``uns["spatial"]`` into SpatialData.

    Give the full-resolution image where there is one: in "hires", a Visium spot is about ten px wide, too few to see
    cells in.

    Parameters
    ----------
    adata
        Its ``obsm[spatial_key]`` holds x and y of the spots, in px of the full resolution. It is left as it is.
    image
        "hires", or another name in ``uns[spatial_key][library]["images"]``; or the full-resolution image, as a path
        (TIFF, PNG, JPEG; read into memory whole) or as an array (height, width, 3), numpy or dask. For several
        libraries, a mapping from library to any of these.
    library_key
        Column of ``obs`` that names each spot's library, needed where there are several.
    library_id
        Library or libraries to use; None is all of ``uns[spatial_key]``.
    spot_diameter
        Of the spots, in px of the full resolution. None is "spot_diameter_fullres" of the scale factors.
    spatial_key
        Key of ``obsm`` and ``uns``.
    table_key
        Name of the table.

    Returns
    -------
    A SpatialData. For library ``"A"`` (characters that SpatialData's names don't allow become underscores), all in the
    coordinate system ``"A"``, whose unit is a px of the full resolution:

    - ``images["A_image"]``: the image, with coarser levels where it is large.
    - ``shapes["A_spots"]``: circles.

    ``tables[table_key]``, a copy of `adata` without ``uns[spatial_key]``, annotates all libraries through
    ``obs["sthisto_region"]`` and ``obs["sthisto_instance"]``. ``attrs["sthisto"]["um_per_unit"]`` holds the µm per px
    where ``obs["array_row"]`` and ``obs["array_col"]`` tell it, that is for Visium.

    Raises
    ------
    KeyError
        Coordinates, a library, an image or a scale factor are missing.
    ValueError
        There are several libraries and no `library_key`, or coordinates are not finite.
    FileNotFoundError
        There is no image at the path.

    Examples
    --------
    >>> import anndata as ad
    >>> import numpy as np
    >>> import sthisto as sth
    >>> adata = ad.AnnData(np.ones((4, 3)), obsm={"spatial": np.array([[20, 20], [20, 60], [60, 20], [60, 60]])})
    >>> image = np.full((80, 80, 3), 230, dtype=np.uint8)
    >>> sdata = sth.io.from_anndata(adata, image=image, library_id="A", spot_diameter=20)
    >>> list(sdata.images), list(sdata.shapes)
    (['A_image'], ['A_spots'])
    """
    from spatialdata import SpatialData

    xy = _coordinates(adata, spatial_key)
    images, shapes, um_per_unit = {}, {}, {}
    region = np.full(adata.n_obs, "", dtype=object)
    for library in _libraries(adata, spatial_key, library_key, library_id):
        name = _safe(library.name)
        spots = f"{name}_spots"
        if spots in shapes:
            msg = f"Library {library.name!r} and another one are both named {name!r} as elements. Rename one of them."
            raise ValueError(msg)
        region[library.rows] = spots
        images[f"{name}_image"] = _image_of(library, image, name)
        shapes[spots] = _circles(library, xy, spot_diameter, name)
        um = um_per_px_of_visium(adata.obs.iloc[library.rows], xy[library.rows], spots)
        if um is not None:
            um_per_unit[name] = um
    sdata = SpatialData(images=images, shapes=shapes, tables={table_key: _table(adata, region, spatial_key)})
    sdata.attrs[KEY] = {UM_PER_UNIT: um_per_unit}
    return sdata


def _coordinates(adata: AnnData, spatial_key: str) -> np.ndarray:
    """Return (n_spots, 2) x and y."""
    check_key(spatial_key, adata.obsm, name="spatial_key", where="obsm")
    xy = np.asarray(adata.obsm[spatial_key], dtype=float)[:, :2]
    lost = ~np.isfinite(xy).all(axis=1)
    if lost.any():
        msg = f"{lost.sum()} of {len(xy)} spots have no coordinates in obsm[{spatial_key!r}]. Leave them out first."
        raise ValueError(msg)
    return xy


def _libraries(
    adata: AnnData, spatial_key: str, library_key: str | None, library_id: str | Sequence[str] | None
) -> list[_Library]:
    known: Mapping[str, Any] = adata.uns.get(spatial_key, {})
    wanted = [library_id] if isinstance(library_id, str) else list(library_id or known or [_DEFAULT_LIBRARY])
    if known:
        for name in wanted:
            check_key(name, known, name="library_id", where=f"uns[{spatial_key!r}]")
    if library_key is None:
        if len(wanted) > 1 or len(known) > 1:
            msg = (
                f"There are several libraries, {listed(known or wanted)}. Pass library_key=…, the column of obs that "
                f"names each spot's. Columns: {listed(adata.obs.columns)}."
            )
            raise ValueError(msg)
        rows = {wanted[0]: np.arange(adata.n_obs)}
    else:
        check_key(library_key, adata.obs.columns, name="library_key", where="the columns of obs")
        names = adata.obs[library_key].astype(str).to_numpy()
        for name in wanted:
            check_key(name, np.unique(names), name="library_id", where=f"obs[{library_key!r}]")
        rows = {name: np.flatnonzero(names == name) for name in wanted}
    entries = {name: known.get(name, {}) for name in wanted}
    return [
        _Library(name, rows[name], entry.get("images", {}), entry.get("scalefactors", {}))
        for name, entry in entries.items()
    ]


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip("_") or _DEFAULT_LIBRARY


def _image_of(library: _Library, image: Image | Mapping[str, Image], system: str) -> Any:
    """Return the element of a library's image in px of the full resolution."""
    if isinstance(image, Mapping):
        check_key(library.name, image, name="library", where="`image`")
        image = image[library.name]
    if not isinstance(image, str | Path):
        return image_element(image, system)
    if isinstance(image, str) and (image in library.images or image in ("hires", "lowres")):
        check_key(image, library.images, name="image", where=f"the images of library {library.name!r}")
        factor = f"tissue_{image}_scalef"
        check_key(factor, library.scalefactors, name="scale factor", where=f"those of library {library.name!r}")
        return image_element(library.images[image], system, px_per_unit=float(library.scalefactors[factor]))
    return image_element(read_pixels(Path(image)), system)


def _circles(library: _Library, xy: np.ndarray, spot_diameter: float | None, system: str) -> Any:
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    if spot_diameter is None:
        check_key(
            "spot_diameter_fullres",
            library.scalefactors,
            name="scale factor",
            where=f"those of library {library.name!r}",
            remedy="Pass spot_diameter=…, in px of the full resolution.",
        )
        spot_diameter = float(library.scalefactors["spot_diameter_fullres"])
    check_positive(spot_diameter, name="spot_diameter")
    return ShapesModel.parse(
        xy[library.rows],
        geometry=0,
        radius=spot_diameter / 2,
        index=pd.Index(library.rows, name=INSTANCE_KEY),
        transformations={system: Identity()},
    )


def _table(adata: AnnData, region: np.ndarray, spatial_key: str) -> AnnData:
    """Return a copy of the rows that have a region, which annotates it."""
    from spatialdata.models import TableModel

    used = np.flatnonzero(region != "")
    table = adata[used].copy()
    for key in (spatial_key, TableModel.ATTRS_KEY):
        table.uns.pop(key, None)
    table.obs[REGION_KEY] = pd.Categorical(region[used])
    table.obs[INSTANCE_KEY] = used
    regions = list(table.obs[REGION_KEY].cat.categories)
    return TableModel.parse(table, region=regions, region_key=REGION_KEY, instance_key=INSTANCE_KEY)
