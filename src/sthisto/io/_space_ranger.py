"""What Space Ranger writes, of all its versions: spots of Visium, and bins of Visium HD."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from sthisto._images.placement import compare_sizes
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed
from sthisto.io._from_anndata import from_anndata
from sthisto.io._image import read_picture
from sthisto.io._libraries import element_name
from sthisto.io._scan import Scan, open_scan

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_COUNTS: Final = "filtered_feature_bc_matrix"
_POSITIONS: Final = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
_COLUMNS: Final = ["in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
_BINS: Final = re.compile(r"square_(\d{3})um")
_USUAL_BIN_UM: Final = 8
_IMAGES: Final = (".tif", ".tiff", ".btf", ".svs", ".ndpi", ".mrxs", ".scn", ".qptiff", ".jpg", ".jpeg", ".png")


def find_run(path: Path) -> Path | None:
    """Return the folder of a run, which may be "outs" in the given one; None where there is none."""
    for folder in (path, path / "outs"):
        if _bins_of(folder) or (any((folder / "spatial" / name).is_file() for name in _POSITIONS)):
            return folder
    return None


def read_run(folder: Path, *, bin_size: int | None, image: Path | None, name: str | None) -> SpatialData:
    """Read the spots or bins of a run, with the finest image that is found.

    Parameters
    ----------
    folder
        "outs" of Space Ranger.
    bin_size
        Width of the bins of Visium HD, in µm.
    image
        The full-resolution image; None looks for it beside the other files.
    name
        Of the elements; None takes that of the run.

    Raises
    ------
    FileNotFoundError
        Counts, positions or every image are missing.
    ValueError
        There are no bins of that size.
    """
    run, bins = folder, _bins_of(folder)
    name = element_name(name or _name_of(folder))
    if bins:
        um = _chosen_bins(bins, bin_size)
        run, name = bins[um], f"{name}_square_{um:03d}um"
    elif bin_size is not None:
        msg = f"{folder} holds spots of Visium, not bins of Visium HD: leave bin_size out."
        raise ValueError(msg)
    adata = _counts(run)
    scalefactors = json.loads((run / "spatial" / "scalefactors_json.json").read_text(encoding="utf-8"))
    overviews = _overviews(run, folder)
    positions = _positions(run).reindex(adata.obs_names)
    adata.obs = adata.obs.join(positions[_COLUMNS[:3]])
    adata.obsm["spatial"] = positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=float)
    adata.uns["spatial"] = {name: {"images": overviews, "scalefactors": scalefactors}}
    scan = _full_image(folder, image, overviews, scalefactors)
    if scan is None and "hires" not in overviews:
        msg = f"{folder} holds no image. Pass image=…, the path of the full-resolution image."
        raise FileNotFoundError(msg)
    whole = scan.levels[0].transpose(1, 2, 0) if scan is not None else None
    sdata = from_anndata(adata, image="hires" if "hires" in overviews else whole)
    overview = sdata.images.pop(f"{name}_image")
    if "hires" in overviews:
        sdata.images[f"{name}_hires_image"] = overview
    if scan is not None:
        sdata.images[f"{name}_full_image"] = scan.element(name)
    return sdata


def _bins_of(folder: Path) -> dict[int, Path]:
    """Return the folders of the bins of Visium HD by their width in µm."""
    found = {}
    for bins in sorted((folder / "binned_outputs").glob("square_*um")):
        if named := _BINS.fullmatch(bins.name):
            found[int(named.group(1))] = bins
    return found


def _chosen_bins(bins: dict[int, Path], bin_size: int | None) -> int:
    if bin_size is not None:
        check_key(int(bin_size), bins, name="bin_size", where="the sizes of bins of the run, in µm")
        return int(bin_size)
    chosen = _USUAL_BIN_UM if _USUAL_BIN_UM in bins else max(bins)
    if len(bins) > 1:
        logger.info("Of the bins of %s µm, those of %d µm are read. Pass bin_size=… for others.", listed(bins), chosen)
    return chosen


def _name_of(folder: Path) -> str:
    counts = next(iter(sorted(folder.glob(f"*_{_COUNTS}.h5"))), None)
    if counts is not None:
        return counts.name.removesuffix(f"_{_COUNTS}.h5")
    resolved = folder.resolve()
    return resolved.parent.name if resolved.name == "outs" else resolved.name


def _counts(run: Path) -> AnnData:
    """Return the filtered counts, genes by their symbols."""
    import scanpy as sc

    packed = [*run.glob(f"{_COUNTS}.h5"), *sorted(run.glob(f"*_{_COUNTS}.h5"))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        if packed:
            adata = sc.read_10x_h5(packed[0], gex_only=False)
        elif (run / _COUNTS).is_dir():
            adata = sc.read_10x_mtx(run / _COUNTS, gex_only=False)
        else:
            msg = f"{run} holds no counts. Expected is {_COUNTS}.h5, or the folder {_COUNTS}."
            raise FileNotFoundError(msg)
    adata.var_names_make_unique()
    return adata


def _positions(run: Path) -> pd.DataFrame:
    """Return the positions of all spots by barcode."""
    path = next(run / "spatial" / name for name in _POSITIONS if (run / "spatial" / name).is_file())
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
    else:
        with path.open(encoding="utf-8-sig") as lines:
            has_header = "in_tissue" in lines.readline()
        table = pd.read_csv(path) if has_header else pd.read_csv(path, header=None, names=["barcode", *_COLUMNS])
    return table.set_index("barcode")


def _overviews(run: Path, folder: Path) -> dict[str, np.ndarray]:
    """Return the small images in RGB; Visium HD may keep them beside the bins alone."""
    found = {}
    for name in ("hires", "lowres"):
        paths = [one / "spatial" / f"tissue_{name}_image.png" for one in (run, folder)]
        path = next((one for one in paths if one.is_file()), None)
        if path is not None:
            found[name] = np.asarray(read_picture(path).pixels)
    return found


def _full_image(
    folder: Path, image: Path | None, overviews: dict[str, np.ndarray], scalefactors: dict[str, Any]
) -> Scan | None:
    """Return the image of the full resolution: the given one, or the only one whose size fits the overview."""
    if image is not None:
        return open_scan(image)
    fitting = [path for path in _candidates(folder) if _fits(path, overviews, scalefactors)]
    if len(fitting) == 1:
        logger.info("The full-resolution image is %s.", fitting[0])
        return open_scan(fitting[0])
    if fitting:
        logger.warning(
            "Several images have the size of the run's: %s. Pass image=… with one.", listed(map(str, fitting))
        )
    else:
        logger.warning(
            "There is no full-resolution image in %s: the overview 'hires' is used, too coarse to see cells in. Pass "
            "image=…, the path of the image that Space Ranger was given.",
            folder,
        )
    return None


def _candidates(folder: Path) -> Sequence[Path]:
    places = [folder, folder / "microscope_image"] + ([folder.parent] if folder.name == "outs" else [])
    return [path for place in places for path in sorted(place.glob("*")) if path.suffix.lower() in _IMAGES]


def _fits(path: Path, overviews: dict[str, np.ndarray], scalefactors: dict[str, Any]) -> bool:
    """Return whether an image in RGB has the size that the overview and its scale factor say."""
    try:
        size = open_scan(path).size
    except (ValueError, ImportError) as error:
        logger.info("%s is not the full-resolution image: %s", path, error)
        return False
    known = [(name, f"tissue_{name}_scalef") for name in overviews if f"tissue_{name}_scalef" in scalefactors]
    return all(not compare_sizes(size, overviews[name].shape[:2], scalefactors[key]) for name, key in known)
