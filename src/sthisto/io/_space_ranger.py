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
from sthisto._sdata.columns import read_numbers
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed
from sthisto.io._from_anndata import from_anndata
from sthisto.io._image import read_picture
from sthisto.io._libraries import element_name
from sthisto.io._reading import reading
from sthisto.io._scan import Scan, open_scan

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

COUNTS: Final = "filtered_feature_bc_matrix"
SEGMENTED: Final = "segmented_outputs"
"""Folder of Space Ranger 4 with the cells of Visium HD."""
_BINNED: Final = "binned_outputs"
_POSITIONS: Final = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
_COLUMNS: Final = ["in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
_FACTORS: Final = frozenset({"tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres"})
_BINS: Final = re.compile(r"square_(\d{3})um")
_USUAL_BIN_UM: Final = 8
_IMAGES: Final = (".tif", ".tiff", ".btf", ".svs", ".ndpi", ".mrxs", ".scn", ".qptiff", ".jpg", ".jpeg", ".png")


def find_run(path: Path) -> Path | None:
    """Return the folder of a run, which may be "outs" in the given one; None where there is none."""
    for folder in (path, path / "outs"):
        if _bins_of(folder) or (any((folder / "spatial" / name).is_file() for name in _POSITIONS)):
            return folder
    return None


def read_run(
    folder: Path, *, bin_size: int | None, image: Path | None, name: str | None, counts: Path | None = None
) -> SpatialData:
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
    counts
        File of the counts; None takes the filtered ones of the run.

    Raises
    ------
    FileNotFoundError
        Counts, scale factors or every image are missing.
    ValueError
        A file is damaged or not of this run, or there are no bins of that size.
    """
    run, bins = folder, _bins_of(folder)
    name = element_name(name or name_of_run(folder, counts))
    if bins:
        um = _chosen_bins(bins, bin_size)
        run, name = bins[um], f"{name}_square_{um:03d}um"
    elif bin_size is not None:
        msg = f"{folder} holds spots of Visium, not bins of Visium HD: leave bin_size out."
        raise ValueError(msg)
    adata = read_counts(run, counts)
    positions = _positions(run, adata.obs_names)
    adata.obs = adata.obs.join(positions[_COLUMNS[:3]])
    adata.obsm["spatial"] = positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=float)
    return with_images(adata, name, [run, folder], image, read_scalefactors(run))


def with_images(
    adata: AnnData,
    name: str,
    folders: Sequence[Path],
    image: Path | None,
    scalefactors: dict[str, Any],
    *,
    spot_diameter: float | None = None,
) -> SpatialData:
    """Return spots, whose centers are in `obsm`, with the overview and the full-resolution image of their run.

    Parameters
    ----------
    adata
        The counts.
    name
        Of the coordinate system.
    folders
        Of the run, whose images are looked for: the part that is read, and "outs".
    image
        The full-resolution image; None looks for it.
    scalefactors
        Of the run.
    spot_diameter
        In px of the full resolution; None is that of the scale factors.

    Raises
    ------
    FileNotFoundError
        There is no image.
    ValueError
        An image is not of this run.
    """
    folder = folders[-1]
    overviews = _overviews(folders)
    adata.uns["spatial"] = {name: {"images": overviews, "scalefactors": scalefactors}}
    scan = _full_image(folder, image, overviews, scalefactors)
    if scan is None and "hires" not in overviews:
        msg = f"{folder} holds no image. Pass image=…, the path of the full-resolution image."
        raise FileNotFoundError(msg)
    whole = scan.levels[0].transpose(1, 2, 0) if scan is not None else None
    sdata = from_anndata(adata, image="hires" if "hires" in overviews else whole, spot_diameter=spot_diameter)
    overview = sdata.images.pop(f"{name}_image")
    if "hires" in overviews:
        sdata.images[f"{name}_hires_image"] = overview
    if scan is not None:
        sdata.images[f"{name}_full_image"] = scan.element(name)
    return sdata


def _bins_of(folder: Path) -> dict[int, Path]:
    """Return the folders of the bins of Visium HD by their width in µm."""
    found = {}
    for bins in sorted((folder / _BINNED).glob("square_*um")):
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


def name_of_run(folder: Path, counts: Path | None, kind: str = COUNTS) -> str:
    """Return the name of a run: that of its counts, or of the folder around "outs"."""
    file = counts or _counts_file(folder, kind)
    if file is not None and file.name.endswith(f"_{kind}.h5"):
        return file.name.removesuffix(f"_{kind}.h5")
    resolved = folder.resolve()
    resolved = resolved.parent if resolved.name == SEGMENTED else resolved
    return resolved.parent.name if resolved.name == "outs" else resolved.name


def _counts_file(run: Path, kind: str) -> Path | None:
    """Return the file of the filtered counts, which may begin with the name of the sample; None without.

    Raises
    ------
    ValueError
        There are those of several samples.
    """
    named = sorted(run.glob(f"*_{kind}.h5"))
    if (plain := run / f"{kind}.h5").is_file():
        return plain
    if len(named) > 1:
        msg = f"{run} holds the counts of several samples: {listed(one.name for one in named)}. Pass the path of one."
        raise ValueError(msg)
    return named[0] if named else None


def read_counts(run: Path, counts: Path | None, kind: str = COUNTS) -> AnnData:
    """Return the counts, genes by their symbols.

    Parameters
    ----------
    run
        Folder in which they lie.
    counts
        Their file; None takes the filtered ones.
    kind
        What the file or folder of the filtered ones is called.

    Raises
    ------
    FileNotFoundError
        There are none.
    ValueError
        They can't be read.
    """
    import scanpy as sc

    file = counts or _counts_file(run, kind)
    if file is None and not (run / kind).is_dir():
        others = sorted(one.name for one in run.glob(f"*{kind.removeprefix('filtered')}.h5"))
        remedy = f" Pass the path of {listed(others)} to read others." if others else ""
        msg = f"{run} holds no counts. Expected is {kind}.h5, or the folder {kind}.{remedy}"
        raise FileNotFoundError(msg)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        with reading(file or run / kind):
            if file is None:
                adata = sc.read_10x_mtx(run / kind, gex_only=False)
            else:
                adata = sc.read_10x_h5(file, gex_only=False)
    adata.var_names_make_unique()
    return adata


def read_scalefactors(run: Path) -> dict[str, float]:
    """Return the scale factors of a run.

    Raises
    ------
    FileNotFoundError
        There are none.
    ValueError
        They can't be read, or one is no positive number; null counts as missing.
    """
    path = run / "spatial" / "scalefactors_json.json"
    if not path.is_file():
        msg = f"{run} lacks {path.relative_to(run)}: the scale of the overviews and the width of a spot."
        raise FileNotFoundError(msg)
    with reading(path):
        stored = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(stored, dict):
        msg = f"{path} holds {type(stored).__name__}; expected are the scale factors by their names."
        raise ValueError(msg)
    factors = {name: value for name, value in stored.items() if value is not None}
    for name in _FACTORS & factors.keys():
        factors[name] = float(read_numbers([factors[name]])[0])
        if not factors[name] > 0:
            msg = f"{path} gives {name!r} as {stored[name]!r}; expected is a positive number."
            raise ValueError(msg)
    return factors


def _positions(run: Path, barcodes: pd.Index) -> pd.DataFrame:
    """Return the positions of spots by barcode, NaN for those that have none.

    Raises
    ------
    ValueError
        The file can't be read, a spot repeats, or none is among the counts.
    """
    path = next(run / "spatial" / name for name in _POSITIONS if (run / "spatial" / name).is_file())
    with reading(path):
        table = pd.read_parquet(path).reset_index() if path.suffix == ".parquet" else _positions_of_csv(path)
    if missing := [name for name in ("barcode", *_COLUMNS) if name not in table]:
        msg = f"{path} lacks the columns {listed(missing)}; it has {listed(table.columns)}."
        raise ValueError(msg)
    table = table.set_index("barcode")
    if not table.index.is_unique:
        msg = f"{path} names {table.index.duplicated().sum()} spots more than once."
        raise ValueError(msg)
    if not barcodes.isin(table.index).any():
        msg = (
            f"{path} names none of the spots of the counts: it begins with {listed(map(str, table.index[:2]))}, the "
            f"counts with {listed(barcodes[:2])}."
        )
        raise ValueError(msg)
    return table.reindex(barcodes)


def _positions_of_csv(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig") as lines:
        has_header = "in_tissue" in lines.readline()
    return pd.read_csv(path) if has_header else pd.read_csv(path, header=None, names=["barcode", *_COLUMNS])


def _overviews(folders: Sequence[Path]) -> dict[str, np.ndarray]:
    """Return the small images in RGB, (height, width, 3); Visium HD may keep them beside the bins alone."""
    found = {}
    for name in ("hires", "lowres"):
        paths = [one / "spatial" / f"tissue_{name}_image.png" for one in folders]
        path = next((one for one in paths if one.is_file()), None)
        if path is not None:
            found[name] = np.asarray(read_picture(path).pixels)
    return found


def _full_image(
    folder: Path, image: Path | None, overviews: dict[str, np.ndarray], scalefactors: dict[str, Any]
) -> Scan | None:
    """Return the image of the full resolution: the given one, or the only one whose size fits the overviews.

    The overviews are (height, width, 3), by name.

    Raises
    ------
    ValueError
        The given one has another size.
    """
    if image is not None:
        scan = open_scan(image)
        if fault := _fault(scan.size, overviews, scalefactors):
            msg = f"{image} is not the full-resolution image of {folder}: {fault}."
            raise ValueError(msg)
        return scan
    fitting = [path for path in _candidates(folder) if _fits(path, overviews, scalefactors)]
    fitting = fitting or [path for path in _of_cytassist(folder) if _fits(path, overviews, scalefactors)]
    if len(fitting) == 1:
        logger.info("The full-resolution image is %s.", fitting[0])
        return open_scan(fitting[0])
    if fitting:
        logger.warning(
            "Several images have the size of the run's: %s. Pass image=… with one.", listed(map(str, fitting))
        )
    elif "hires" in overviews:
        logger.warning(
            "There is no full-resolution image in %s: the overview 'hires' is used, too coarse to see cells in. Pass "
            "image=…, the path of the image that Space Ranger was given.",
            folder,
        )
    return None


def _candidates(folder: Path) -> Sequence[Path]:
    outs = outs_of(folder)
    around = [outs.resolve().parent] if outs.resolve().name == "outs" else []
    places = dict.fromkeys([folder, outs, outs / "microscope_image", *around])
    return [path for place in places for path in sorted(place.glob("*")) if path.suffix.lower() in _IMAGES]


def _of_cytassist(folder: Path) -> Sequence[Path]:
    """Return the image of the CytAssist, which is that of the full resolution where no microscope took another one."""
    return [path for path in [outs_of(folder) / "spatial" / "cytassist_image.tiff"] if path.is_file()]


def outs_of(folder: Path) -> Path:
    """Return the folder "outs" around the cells or bins of a run, and other folders as they are."""
    resolved = folder.resolve()
    if resolved.name == SEGMENTED:
        return resolved.parent
    return resolved.parent.parent if resolved.parent.name == _BINNED else folder


def _fits(path: Path, overviews: dict[str, np.ndarray], scalefactors: dict[str, Any]) -> bool:
    """Return whether an image in RGB has the size that overviews, (height, width, 3), and their scale factors say."""
    try:
        size = open_scan(path).size
    except (ValueError, ImportError) as error:
        logger.info("%s is not the full-resolution image: %s", path, error)
        return False
    return not _fault(size, overviews, scalefactors)


def _fault(size: tuple[int, int], overviews: dict[str, np.ndarray], scalefactors: dict[str, Any]) -> str:
    """Return what is wrong with the size of an image for overviews, (height, width, 3), empty where it fits."""
    known = [(one, scalefactors.get(f"tissue_{name}_scalef")) for name, one in overviews.items()]
    faults = [compare_sizes(size, overview.shape[:2], scale) for overview, scale in known if scale]
    return next(filter(None, faults), "")
