"""Tell what a path holds, and read it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sthisto._utils.arguments import checked
from sthisto._utils.checks import path as path_check
from sthisto._utils.logging import logger
from sthisto.io._image import ANY_PICTURE
from sthisto.io._reading import read_anndata, reading
from sthisto.io._slide import SLIDE_SUFFIXES, is_slide
from sthisto.io._slide_zarr import is_zarr
from sthisto.io._space_ranger import find_run, read_run
from sthisto.io._space_ranger_cells import find_cells, read_cells
from sthisto.io._xenium import SPECS, read_xenium

if TYPE_CHECKING:
    from spatialdata import SpatialData

_KNOWN: Final = (
    "a slide or picture (.svs, .ndpi, .tif, .mrxs, …), a SpatialData store, an OME-Zarr, an h5ad, 'outs' of Space "
    "Ranger (Visium, Visium HD) or its 'segmented_outputs', the folder of a Xenium run (experiment.xenium), or a "
    "folder of HEST-1k (st, metadata, wsis)"
)
_COUNTS_OF_RUN: Final = ("feature_bc_matrix.h5", "feature_cell_matrix.h5")
_OF_RUN: Final = ("image", "name")
"""Arguments that every run takes."""
_STORES: Final = frozenset({"images", "labels", "points", "shapes", "tables"})


@checked(image=path_check)
def read(
    path: str | os.PathLike[str],
    *,
    image: str | os.PathLike[str] | None = None,
    bin_size: int | None = None,
    um_per_px: float | None = None,
    name: str | None = None,
) -> SpatialData:
    """Read whatever a path holds, with the right image and its µm per px.

    Recognized by what they contain are: the folder "outs" of Space Ranger 1 to 4, with spots of Visium or bins of
    Visium HD; "segmented_outputs" of Space Ranger 4, with the cells of Visium HD; the folder of a Xenium run; slides
    and pictures, see `sthisto.io.read_slide`; an AnnData in an h5ad; a SpatialData store; and a folder of HEST-1k. What
    was chosen is logged (``logging.getLogger("sthisto")``, level INFO). Images are lazy.

    Parameters
    ----------
    path
        File or folder. Of a run, the file of its counts ("…feature_bc_matrix.h5", "…feature_cell_matrix.h5") says which
        are read. A run of Visium HD is read as bins; its cells are read with the path of "segmented_outputs".
    image
        Path of the full-resolution H&E image of a run or an h5ad. None: looked for beside the other files. For Space
        Ranger it must have the size of the overview over its scale factor; for Xenium, it is "…he_image.ome.tif" with
        "…he_imagealignment.csv".
    bin_size
        Width of the bins of Visium HD in µm. None: 8.
    um_per_px
        µm per px of the full resolution of a slide. None: as the file states.
    name
        Name of the coordinate system, with which those of the elements begin. None: that of the run or file.

    Returns
    -------
    A SpatialData. Runs have the table ``"table"``, which annotates circles or polygons, and ``obsm["spatial"]``.
    ``attrs["sthisto"]["um_per_unit"]`` holds the µm per px where they are known: neither `image_key` nor `um_per_px` is
    needed in later calls.

    Raises
    ------
    FileNotFoundError
        There is nothing at the path, or a part of a run is missing.
    ValueError
        It is nothing that is known, or an argument does not belong to what it is.

    Examples
    --------
    >>> import sthisto as sth
    >>> sth.datasets.synthetic(n_sections=1).write("sections.zarr")
    >>> sdata = sth.io.read("sections.zarr")
    >>> sth.io.read("V1_Human_Breast/outs", image="he.tif")  # doctest: +SKIP
    """
    source = Path(path).expanduser()
    if not source.exists():
        msg = f"There is nothing at {source}."
        raise FileNotFoundError(msg)
    picture = None if image is None else Path(image).expanduser()
    if picture is not None and not picture.exists():
        msg = f"There is no image at {picture}."
        raise FileNotFoundError(msg)
    given = {"image": picture, "bin_size": bin_size, "um_per_px": um_per_px, "name": name}
    kind, takes, reader = recognize(source)
    foreign = [argument for argument, value in given.items() if value is not None and argument not in takes]
    if foreign:
        msg = f"{source} is {kind}, which takes no {', '.join(foreign)}."
        raise ValueError(msg)
    logger.info("%s is %s.", source, kind)
    return reader(source, **{argument: given[argument] for argument in takes})


def recognize(path: Path) -> tuple[str, tuple[str, ...], Callable[..., SpatialData]]:
    """Return what a path holds, the arguments that it takes, and what reads it.

    Raises
    ------
    ValueError
        It is nothing that is known.
    """
    if path.is_dir():
        return _recognize_folder(path)
    if path.name == SPECS:
        return "a Xenium run", _OF_RUN, lambda _, **arguments: read_xenium(path.parent, **arguments)
    if path.name.endswith(_COUNTS_OF_RUN):
        if run := _recognize_run(path.parent, counts=path):
            return run
        msg = (
            f"{path} are counts without the rest of a run: expected beside them are 'spatial' with the positions of "
            "spots or bins, or 'cell_segmentations.geojson' with the outlines of cells."
        )
        raise ValueError(msg)
    if path.suffix.lower() == ".h5ad":
        return "an AnnData", ("image",), _read_anndata
    if is_slide(path) or path.suffix.lower() in (*ANY_PICTURE, *SLIDE_SUFFIXES):  # by its name, it may be damaged
        return "a slide", ("um_per_px", "name"), _read_slide
    msg = f"{path} is nothing that is known. Known are {_KNOWN}."
    raise ValueError(msg)


def _recognize_folder(path: Path) -> tuple[str, tuple[str, ...], Callable[..., SpatialData]]:
    if (path / SPECS).is_file():
        return "a Xenium run", _OF_RUN, read_xenium
    if is_zarr(path):
        return _recognize_zarr(path)
    if run := _recognize_run(path):
        return run
    if (path / "st").is_dir() and ((path / "wsis").is_dir() or (path / "patches").is_dir()):
        return "a folder of HEST-1k", (), _read_hest
    holds = ", ".join(sorted(one.name for one in path.iterdir())[:8]) or "nothing"
    msg = f"{path} is nothing that is known: it holds {holds}. Known are {_KNOWN}."
    raise ValueError(msg)


def _recognize_run(
    path: Path, counts: Path | None = None
) -> tuple[str, tuple[str, ...], Callable[..., SpatialData]] | None:
    """Return what a folder of Space Ranger holds, of which `counts` may be read; None for other folders."""
    run, cells = find_run(path), find_cells(path)
    if cells is not None and (run is None or (counts is not None and counts.parent == cells)):
        kind = "a folder of segmented cells of Visium HD"
        return kind, _OF_RUN, lambda _, **arguments: read_cells(cells, counts=counts, **arguments)
    if run is None:
        return None

    def read_spots(_: Path, **arguments: Any) -> SpatialData:
        if cells is not None:
            logger.info("%s holds segmented cells too: pass its path to read them.", cells)
        return read_run(run, counts=counts, **arguments)

    kind = "a Visium HD run" if (run / "binned_outputs").is_dir() else "a Visium run"
    return kind, (*_OF_RUN, "bin_size"), read_spots


def _recognize_zarr(path: Path) -> tuple[str, tuple[str, ...], Callable[..., SpatialData]]:
    import zarr

    with reading(path):
        stored = zarr.open(path, mode="r")
    attrs = dict(stored.attrs)
    if attrs.get("encoding-type") == "anndata":
        return "an AnnData", ("image",), _read_anndata
    if isinstance(stored, zarr.Group) and ("spatialdata_attrs" in attrs or _STORES & set(stored.group_keys())):
        return "a SpatialData store", (), _read_store
    return "an image in zarr", ("um_per_px", "name"), _read_slide


def _read_slide(path: Path, *, um_per_px: float | None, name: str | None) -> SpatialData:
    from sthisto.io._read_slide import read_slide

    return read_slide(path, um_per_px=um_per_px, name=name)


def _read_anndata(path: Path, *, image: Any) -> SpatialData:
    from sthisto.io._from_anndata import from_anndata

    return from_anndata(read_anndata(path), image="hires" if image is None else image)


def _read_store(path: Path) -> SpatialData:
    import spatialdata as sd

    with reading(path):
        return sd.read_zarr(path)


def _read_hest(path: Path) -> SpatialData:
    from sthisto.io._hest import hest

    return hest(path)


def is_known(path: Path) -> bool:
    """Return whether `read` knows what a path holds."""
    try:
        recognize(path)
    except ValueError:
        return False
    return True
