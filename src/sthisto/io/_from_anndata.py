"""AnnData with spots and images in its slots, as scanpy and squidpy read Visium, to SpatialData."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sthisto._images.pitch import median_pitch
from sthisto._sdata.expression import looks_like_counts
from sthisto._sdata.inside import check_inside
from sthisto._sdata.resolution import um_per_px_of_visium
from sthisto._sdata.slots import ALLOW_OUTSIDE, INSTANCE, KEY, REGION, UM_PER_UNIT
from sthisto._sdata.tables import in_memory, layer_names, read_matrix
from sthisto._utils.arguments import checked
from sthisto._utils.checks import new_name
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_positive, listed
from sthisto.io._coordinates import read_coordinates
from sthisto.io._image import image_element
from sthisto.io._libraries import Library, check_array_positions, element_name, find_libraries
from sthisto.io._overview import check_factors, check_fits
from sthisto.io._pictures import Image, Pictures

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_COUNTS = "counts"
_UM_APART = 1.1
_SPOT_UM = (35, 105)
_LEAST_PITCH = 0.9
"""Distance of neighbors in diameters of a spot below which they overlap."""


@checked(table_key=new_name)
def from_anndata(
    adata: AnnData,
    *,
    image: Image | Mapping[str, Image] = "hires",
    library_key: str | None = None,
    library_id: str | Sequence[str] | None = None,
    spot_diameter: float | None = None,
    spatial_key: str = "spatial",
    table_key: str = "table",
    check_image: bool = True,
    allow_outside: bool = False,
) -> SpatialData:
    """Turn an AnnData with ``obsm["spatial"]`` and ``uns["spatial"]`` into SpatialData.

    Give the full-resolution image where there is one: in "hires", a Visium spot is about ten px wide, too few to see
    cells in.

    Parameters
    ----------
    adata
        Its ``obsm[spatial_key]`` holds x and y of the spots, in px of the full resolution; in a DataFrame, columns
        named for x and y, or for column and row, are taken by their names. It is left as it is. Spots without
        coordinates are left out, with a warning.
    image
        "hires", or another name in ``uns[spatial_key][library]["images"]``; or the full-resolution image, as a path
        (TIFF, PNG, JPEG; read into memory at once) or as an array (height, width, 3): numpy, dask, zarr, xarray or
        PIL. For several libraries, a mapping from library to any of these. Colors are taken by the color model of the
        file; of several images in a TIFF, the largest in color is read.
    library_key
        Column of ``obs`` that names each spot's library, needed where there are several. Names are compared as text.
    library_id
        Library or libraries to use; None is all that ``uns[spatial_key]`` and the column know.
    spot_diameter
        Of the spots, in px of the full resolution. None is "spot_diameter_fullres" of the scale factors.
    spatial_key
        Key of ``obsm`` and ``uns``.
    table_key
        Name of the table.
    check_image
        Whether an image that plainly is not the one that the coordinates belong to is refused. All images of
        ``uns[spatial_key]`` must be of one full resolution by their scale factors. Where
        ``uns[spatial_key]`` holds an overview ("hires" or "lowres"), the image must have its size over its scale
        factor within one percent, and show the same in the same place and colors. False only warns.
    allow_outside
        Whether more than a tenth of a library's spots may lie outside its image. They are left out.

    Returns
    -------
    A SpatialData. For library ``"A"`` (characters that SpatialData's names don't allow become underscores), all in the
    coordinate system ``"A"``, whose unit is a px of the full resolution:

    - ``images["A_image"]``: the image, with coarser levels where it is large.
    - ``shapes["A_spots"]``: circles.

    ``tables[table_key]``, a copy of `adata` without ``uns[spatial_key]``, annotates all libraries through
    ``obs["sthisto_region"]`` and ``obs["sthisto_instance"]``. Where X holds no counts and ``adata.raw`` does, these
    become ``layers["counts"]``. ``attrs["sthisto"]["um_per_unit"]`` holds the µm per px by the first of these that is
    known: Visium's ``obs["array_row"]`` and ``obs["array_col"]``, "microns_per_pixel" or "bin_size_um" of the scale
    factors, what the image file states.

    Raises
    ------
    KeyError
        Coordinates, a library, an image or a scale factor are missing.
    ValueError
        There are several libraries and no `library_key`, no spot has coordinates, the image is not in RGB or is not
        the one that the coordinates belong to, or more than a tenth of the spots lie outside.
    FileNotFoundError
        There is no image at the path.
    TypeError
        `adata` or `image` is of a type that is not taken.

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
    from anndata import AnnData
    from spatialdata import SpatialData

    if not isinstance(adata, AnnData):
        msg = f"`adata` must be an AnnData, found {type(adata).__name__}. Read a file with anndata.read_h5ad first."
        raise TypeError(msg)
    xy = read_coordinates(adata, spatial_key)
    pictures = Pictures(image)
    libraries = find_libraries(
        adata,
        spatial_key=spatial_key,
        library_key=library_key,
        library_id=library_id,
        has_image=pictures.named,
    )
    pictures.check_complete(libraries)
    images, shapes, um_per_unit = {}, {}, {}
    region = np.full(adata.n_obs, "", dtype=object)
    for library in libraries:
        name = element_name(library.name)
        _check_new(name, library, libraries)
        rows = library.rows[np.isfinite(xy[library.rows, 0])]
        check_array_positions(adata.obs.iloc[rows], f"library {library.name!r}")
        picture, factor = pictures.of(library)
        if factor is None:
            check_fits(picture.pixels, library, refuse=check_image)
        else:
            check_factors(pictures.name_of(library), library, refuse=check_image)
        size = np.array(picture.pixels.shape[1::-1])
        inside = ((xy[rows] * (factor or 1) >= 0) & (xy[rows] * (factor or 1) < size)).all(axis=1)
        check_inside(
            inside,
            xy[rows] * (factor or 1),
            size,
            what=f"library {library.name!r}",
            image=f"its image of {size[0]} x {size[1]} px",
            allow_outside=allow_outside,
        )
        region[rows] = f"{name}_spots"
        images[f"{name}_image"] = image_element(picture.pixels, name, px_per_unit=factor or 1.0)
        shapes[f"{name}_spots"] = _circles(library, rows, xy, spot_diameter, name)
        um = _um_per_px(adata.obs.iloc[rows], xy[rows], library, None if factor else picture.um_per_px)
        if um is not None:
            um_per_unit[name] = um
    pictures.check_shared(adata.obs, xy, libraries)
    sdata = SpatialData(images=images, shapes=shapes, tables={table_key: _table(adata, region, spatial_key)})
    sdata.attrs[KEY] = {UM_PER_UNIT: um_per_unit} | ({ALLOW_OUTSIDE: True} if allow_outside else {})
    return sdata


def _check_new(name: str, library: Library, libraries: Sequence[Library]) -> None:
    """Refuse a library that SpatialData could not distinguish from another one by its element's name."""
    same = [one.name for one in libraries if element_name(one.name).lower() == name.lower()]
    if len(same) > 1:
        msg = (
            f"Libraries {listed(same)} are both named {name!r} as elements, whose names take no other characters than "
            "letters, digits, '_', '-' and '.', and do not differ by case alone. Rename one of them."
        )
        raise ValueError(msg)
    if not len(library.rows):
        msg = f"Library {library.name!r} has no spot. Choose others with library_id=…"
        raise ValueError(msg)


def _um_per_px(obs: pd.DataFrame, xy: np.ndarray, library: Library, of_file: float | None) -> float | None:
    """Return the µm per px of the full resolution: by the array and (n, 2) `xy`, Space Ranger, or the image file."""
    bin_size, diameter = library.number("bin_size_um"), library.number("spot_diameter_fullres")
    by_array = um_per_px_of_visium(obs, xy, f"{element_name(library.name)}_spots", bin_size_um=bin_size)
    if by_array and diameter and not bin_size:
        _check_diameter(diameter * by_array, library)
    elif diameter and not bin_size and len(xy) > 1:
        _check_overlap(median_pitch(xy), diameter, library)
    stated = library.number("microns_per_pixel")
    if stated is None and bin_size and diameter:
        stated = bin_size / diameter
    known = [um for um in (by_array, stated, of_file) if um is not None]
    if known and max(known) / min(known) > _UM_APART:
        logger.warning(
            "The µm per px of library %r are %s by its array, scale factors or image file: %.3g is used.",
            library.name,
            ", ".join(f"{um:.3g}" for um in known),
            known[0],
        )
    return known[0] if known else None


def _check_diameter(diameter_um: float, library: Library) -> None:
    """Warn where coordinates and scale factors are not of one resolution, by the width that a spot of Visium has."""
    low, high = _SPOT_UM
    if not low < diameter_um < high:
        logger.warning(
            "By the array and 'spot_diameter_fullres', a spot of library %r would be %.3g µm wide, where Visium's are "
            "55: the coordinates are probably not in px of the full resolution, but of another one.",
            library.name,
            diameter_um,
        )


def _check_overlap(pitch: float, diameter: float, library: Library) -> None:
    """Warn where spots would overlap: coordinates and scale factors are then not of one resolution."""
    if pitch < _LEAST_PITCH * diameter:
        logger.warning(
            "The spots of library %r are %.3g px apart and %.3g px wide by 'spot_diameter_fullres': they would "
            "overlap. The coordinates are probably not in px of the full resolution, but of another one, in µm, or "
            "positions of the array.",
            library.name,
            pitch,
            diameter,
        )


def _circles(library: Library, rows: np.ndarray, xy: np.ndarray, spot_diameter: float | None, system: str) -> Any:
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    diameter = library.number("spot_diameter_fullres") if spot_diameter is None else float(spot_diameter)
    if diameter is None:
        msg = (
            f"Library {library.name!r} has no scale factor 'spot_diameter_fullres'. It has: "
            f"{listed(library.scalefactors)}. Pass spot_diameter=…, in px of the full resolution."
        )
        raise KeyError(msg)
    check_positive(diameter, name="spot_diameter")
    return ShapesModel.parse(
        xy[rows],
        geometry=0,
        radius=diameter / 2,
        index=pd.Index(rows, name=INSTANCE),
        transformations={system: Identity()},
    )


def _table(adata: AnnData, region: np.ndarray, spatial_key: str) -> AnnData:
    """Return a copy of the rows that have a region, (n_obs,) names or "", which annotates the regions."""
    from spatialdata.models import TableModel

    used = np.flatnonzero(region != "")
    table = adata[used].to_memory() if adata.isbacked else adata[used].copy()
    for key in (spatial_key, TableModel.ATTRS_KEY):
        table.uns.pop(key, None)
    table.obs[REGION] = pd.Categorical(region[used])
    table.obs[INSTANCE] = used
    _keep_counts(table)
    regions = list(table.obs[REGION].cat.categories)
    return TableModel.parse(table, region=regions, region_key=REGION, instance_key=INSTANCE)


def _keep_counts(table: AnnData) -> None:
    """Put the counts of `raw` into a layer where nothing else of the table holds counts."""
    raw = table.raw
    if raw is None or table.X is None or _COUNTS in layer_names(table) or not table.var_names.isin(raw.var_names).all():
        return
    if not _is_counts(table.X) and _is_counts(raw.X):
        table.layers[_COUNTS] = read_matrix(table, "raw")
        logger.warning(
            "X holds no counts: those of adata.raw are layers[%r]. Pass layer=%r to fit on them.", _COUNTS, _COUNTS
        )


def _is_counts(matrix: Any) -> bool:
    try:
        return looks_like_counts(in_memory(matrix))
    except ValueError:  # NaN
        return False
