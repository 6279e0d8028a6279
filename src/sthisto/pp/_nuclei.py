"""Nuclei of an H&E image, as cells to predict."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sthisto._images.nuclei import Segment, Tiles, find_nuclei, slide_stains, watershed_nuclei
from sthisto._sdata.image_scale import known_um_per_px, remember_um_per_px, stated_um_per_px, um_per_px_of_arrays
from sthisto._sdata.new_cells import polygons
from sthisto._sdata.new_shapes import annotating_table, check_no_element, read_image, resolve_image
from sthisto._sdata.slots import NUCLEI, table_of_shapes
from sthisto._sdata.write import Update, apply
from sthisto._utils.arguments import checked
from sthisto._utils.checks import choice, number, text
from sthisto._utils.logging import logger

if TYPE_CHECKING:
    from spatialdata import SpatialData

_COARSE_UM: Final = 1.0
_METHODS: Final = ("watershed", "cellpose", "stardist", "instanseg")
_PACKAGES: Final = {"instanseg": "instanseg-torch"}


@checked(image_key=text, um_per_px=number(above=0), method=choice(*_METHODS))
def nuclei(
    sdata: SpatialData,
    *,
    method: str = "watershed",
    image_key: str | None = None,
    um_per_px: float | None = None,
    key_added: str = NUCLEI,
) -> None:
    """Find the nuclei of an H&E image, so that a model predicts cells.

    Parameters
    ----------
    sdata
        SpatialData with the image.
    method
        "watershed" needs nothing but scikit-image. "cellpose", "stardist" and "instanseg" are networks of packages
        that must be installed, with their pretrained weights.
    image_key
        H&E image. None: inferred if there is exactly one image.
    um_per_px
        µm per px of the image's full resolution. None: taken from the coordinate system if its unit is known, or from
        the array of Visium spots or Visium HD bins aligned with the image.
    key_added
        Name of the new shapes; the table is named ``f"{key_added}_table"``.

    Returns
    -------
    None. Writes ``sdata.shapes[key_added]``, polygons in the coordinate systems of the image, and
    ``sdata.tables[f"{key_added}_table"]``, a table without genes that annotates them, with ``obsm["spatial"]`` and
    ``obs["area_um2"]``. Predict with ``sth.tl.predict(sdata, model, table_key="nuclei_table", new_table_key="cells")``.

    Raises
    ------
    ImportError
        The package of the method is not installed.
    KeyError
        The image is missing.
    ValueError
        The µm per px are unknown, the image is ambiguous or has no nuclei, or an element has one of the new names.

    Notes
    -----
    The image is read in tiles of 448 µm that overlap by 32 µm on each side, one at a time, at 0.5 µm per px. Nuclei are
    darker in hematoxylin, by the slide's own stains, than 0.9 of Otsu's threshold and than their surroundings; touching
    ones are parted by a watershed. On synthetic sections F1 was 0.82 to 0.88 at 0.25 to 1 µm per px, 0.81 at 2
    and 0.73 to 0.76 at 3 (``python benchmarks/nuclei.py``); images coarser than 1 are warned of.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=1, n_patients=1)
    >>> sth.pp.nuclei(sdata)
    >>> sdata["nuclei_table"].n_obs > 500
    True
    """
    image_key = resolve_image(sdata, image_key)
    table_key = table_of_shapes(key_added)
    check_no_element(sdata, (key_added, table_key), argument="key_added")
    of_system = known_um_per_px(sdata, image_key)
    known = of_system or um_per_px_of_arrays(sdata, image_key)
    um_per_px = known if um_per_px is None else stated_um_per_px(um_per_px, known, image_key)
    if um_per_px is None:
        msg = f"The µm per px of image {image_key!r} are unknown, and nuclei are looked for by size. Pass um_per_px=…"
        raise ValueError(msg)
    if um_per_px > _COARSE_UM:
        logger.warning(
            "Image %r has %.3g µm per px: nuclei are a few px wide, and many are missed. Use the image of the full "
            "resolution.",
            image_key,
            um_per_px,
        )
    load = _LOADERS[method]
    tiles = Tiles(read_image(sdata, image_key), um_per_px)
    found = find_nuclei(tiles, load(tiles)) if len(tiles) else None
    if found is None or not len(found.centers):
        msg = f"No nuclei were found in image {image_key!r}. Check um_per_px, or look at the image."
        raise ValueError(msg)
    logger.info("%d nuclei were found in image %r.", len(found.centers), image_key)
    empty = np.empty((len(found.centers), 0), dtype=np.float32)
    table = annotating_table({key_added: found.centers}, empty, [], {"area_um2": found.areas.astype(np.float32)})
    apply(
        [
            Update(sdata, "shapes", key_added, polygons(sdata, image_key, found.outlines)),
            Update(sdata, "tables", table_key, table),
        ]
    )
    if of_system is None:
        remember_um_per_px(sdata, image_key, um_per_px)


def _watershed(tiles: Tiles) -> Segment:
    stains = slide_stains(tiles)
    return lambda tile: watershed_nuclei(tile, stains)


def _cellpose(_: Tiles) -> Segment:
    _need("cellpose")
    from cellpose import models

    network: Any = models.CellposeModel(gpu=False)
    return lambda tile: np.asarray(network.eval(tile)[0], dtype=np.int32)


def _stardist(_: Tiles) -> Segment:
    _need("stardist")
    from stardist.models import StarDist2D

    network: Any = StarDist2D.from_pretrained("2D_versatile_he")
    return lambda tile: np.asarray(network.predict_instances(tile.astype(np.float32) / 255)[0], dtype=np.int32)


def _instanseg(_: Tiles) -> Segment:
    _need("instanseg")
    from instanseg import InstanSeg

    network: Any = InstanSeg("brightfield_nuclei", verbosity=0)

    def segment(tile: np.ndarray) -> np.ndarray:
        labels = network.eval_small_image(tile, 0.5, return_image_tensor=False)
        return np.asarray(labels).squeeze().astype(np.int32)

    return segment


_LOADERS: Final = {"watershed": _watershed, "cellpose": _cellpose, "stardist": _stardist, "instanseg": _instanseg}


def _need(package: str) -> None:
    if find_spec(package) is None:
        msg = f"method={package!r} needs its package: pip install {_PACKAGES.get(package, package)}"
        raise ImportError(msg)
