"""A slide file to SpatialData with a lazy image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sthisto._sdata.slots import KEY, OBJECTIVE, UM_PER_UNIT
from sthisto._utils.arguments import checked
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_positive
from sthisto.io._image import image_element, read_picture
from sthisto.io._libraries import element_name
from sthisto.io._scan import open_scan
from sthisto.io._slide import is_slide, srgb_transform, stem_of
from sthisto.io._slide_zarr import is_zarr

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked()
def read_slide(
    path: str | os.PathLike[str], *, um_per_px: float | None = None, name: str | None = None, apply_icc: bool = False
) -> SpatialData:
    """Read a whole-slide image as SpatialData, without reading its pixels.

    TIFF files of all kinds (Aperio .svs, Hamamatsu .ndpi, Akoya .qptiff, OME-TIFF, BigTIFF, plain pyramids) are read
    with tifffile, compressed ones with imagecodecs. MIRAX (.mrxs), Leica (.scn), Ventana (.bif), Zeiss (.czi), DICOM
    and others are read with OpenSlide. Both come with ``pip install "sthisto[slides]"``. OME-Zarr is read lazily too;
    JPEG, PNG and other pictures are read into memory at once.

    Parameters
    ----------
    path
        File, or folder of a zarr. It is recognized by its content.
    um_per_px
        µm per px of the full resolution. None: as the file states.
    name
        Name of the coordinate system, and of the image with "_image" appended. None: the name of the file.
    apply_icc
        Whether colors are converted to sRGB by the color profile of the file. Models are commonly trained on colors as
        stored.

    Returns
    -------
    A SpatialData with ``images[f"{name}_image"]``, a multiscale image with the levels of the file, in RGB and uint8.
    Large slides without levels get lazy ones. Its only coordinate system is `name`, whose unit is a px of the full
    resolution. Labels, macro images and thumbnails are left out; what was not scanned is white.
    ``attrs["sthisto"]["um_per_unit"][name]`` and ``attrs["sthisto"]["objective"][name]`` hold the µm per px and the
    magnification of the objective where these are known.

    Raises
    ------
    FileNotFoundError
        There is nothing at the path.
    ValueError
        The file is damaged or incomplete, or holds no image in RGB.
    ImportError
        The format needs a package that is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import sthisto as sth
    >>> from tifffile import imwrite
    >>> pixels = np.full((300, 400, 3), 230, dtype=np.uint8)
    >>> imwrite("slide.tif", pixels, photometric="rgb", resolution=(20_000, 20_000), resolutionunit="CENTIMETER")
    >>> sdata = sth.io.read_slide("slide.tif")
    >>> list(sdata.images), sdata.attrs["sthisto"]["um_per_unit"]
    (['slide_image'], {'slide': 0.5})
    """
    from spatialdata import SpatialData

    source = Path(path).expanduser()
    if not source.exists():
        msg = f"There is no slide at {source}."
        raise FileNotFoundError(msg)
    if um_per_px is not None:
        check_positive(um_per_px, name="um_per_px")
    system = element_name(stem_of(source) if name is None else name)
    image, stated, objective = _read(source, system, apply_icc=apply_icc)
    um = um_per_px or stated
    sdata = SpatialData(images={f"{system}_image": image})
    known = {UM_PER_UNIT: um, OBJECTIVE: objective}
    sdata.attrs[KEY] = {slot: {system: float(value)} for slot, value in known.items() if value is not None}
    if um is None:
        logger.warning("%s does not state its µm per px. Pass um_per_px=…, from the scanner.", source)
    return sdata


def _read(path: Path, system: str, *, apply_icc: bool) -> tuple[Any, float | None, float | None]:
    """Return the image element, the µm per px and the magnification of the objective."""
    if path.is_dir() and not is_zarr(path):
        msg = f"{path} is a folder, and no zarr. Pass the file of a slide, or read a run with sthisto.io.read."
        raise ValueError(msg)
    if path.is_dir() or is_slide(path):
        scan = open_scan(path, apply_icc=apply_icc)
        return scan.element(system), scan.um_per_px, scan.objective
    picture = read_picture(path)
    convert = srgb_transform(picture.icc_profile, path) if apply_icc else None
    pixels = picture.pixels if convert is None else convert(picture.pixels)
    return image_element(pixels, system), picture.um_per_px, None
