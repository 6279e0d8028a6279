"""Four serial Visium sections of a healthy human liver, GSE240429."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import scipy.sparse as sp

from sthisto._logging import logger
from sthisto._resolution import um_per_px_of_visium
from sthisto._validate import check_key
from sthisto.datasets._samples import Sample, assemble, lazy_tiff

if TYPE_CHECKING:
    from spatialdata import SpatialData

_NUMBER: Final = {"A1": 1, "B1": 2, "C1": 3, "D1": 4}
_SPOT_UM = 55.0
_FIRST_SAMPLE: Final = 7697868
_GEO: Final = "https://www.ncbi.nlm.nih.gov/geo/download/"
_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row", "pxl_col"]
_LAYOUT = (
    "data/filtered_expression_matrices/1/{matrix.mtx, barcodes.tsv, features.tsv} (each may end in .gz), "
    "data/tissue_pos_matrices/tissue_positions_list_1.csv and, anywhere below the folder, "
    "…GEX_C73_A1_Merged.tif or .tiff; 1 to 4 are A1, B1, C1 and D1"
)


def liver(path: str | os.PathLike[str], *, sections: Sequence[str] | None = None) -> SpatialData:
    """Read the liver sections that BLEEP and DANet were published on: A1, B1, C1 and D1 of donor C73.

    They are serial sections of one donor: a score of one by a model of the others says nothing of a new patient.

    Parameters
    ----------
    path
        Folder with the files of GEO's GSE240429 in the layout of BLEEP's repository.
    sections
        Names such as ``["C1"]``. None reads all that are there.

    Returns
    -------
    For section ``"C1"``, in the coordinate system ``"C1"``, whose unit is a px of the image: ``images["C1_image"]``,
    decoded when it is used, and ``shapes["C1_spots"]``, circles of 55 µm. ``tables["counts"]`` holds raw counts and
    ``obs`` "section", "patient", "in_tissue", "array_row", "array_col". Barcodes of counts and positions are matched by
    name; symbols that repeat are added up; spots without counts stay. ``attrs`` holds the µm per px, from the array.

    Raises
    ------
    FileNotFoundError
        A file is missing; the message says what to put where.
    KeyError
        A section is not there.
    ValueError
        Counts and positions name different spots.

    References
    ----------
    Andrews et al., Journal of Hepatology 2024, doi:10.1016/j.jhep.2023.12.023; Xie et al., BLEEP, NeurIPS 2023. Data:
    GEO accession GSE240429.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.liver("GSE240429_data")  # doctest: +SKIP
    """
    root = Path(path).expanduser()
    data = next((one for one in (root / "data", root) if (one / "filtered_expression_matrices").is_dir()), None)
    if data is None:
        msg = f"{root} does not hold the liver sections. Download GSE240429 from GEO and put there: {_LAYOUT}."
        raise FileNotFoundError(msg)
    there = [name for name, i in _NUMBER.items() if (data / "filtered_expression_matrices" / str(i)).is_dir()]
    chosen = there if sections is None else list(dict.fromkeys(sections))
    for name in chosen:
        check_key(name, there, name="sections", where="the folder")
    return assemble([_read(root, data, name) for name in chosen])


def _read(root: Path, data: Path, name: str) -> Sample:
    folder = data / "filtered_expression_matrices" / str(_NUMBER[name])
    barcodes = _lines(folder, "barcodes.tsv")[0]
    features = _lines(folder, "features.tsv")
    positions = _positions(data / "tissue_pos_matrices" / f"tissue_positions_list_{_NUMBER[name]}.csv")
    missing = [barcode for barcode in barcodes if barcode not in positions.index]
    if missing:
        msg = f"{len(missing)} of {len(barcodes)} spots of section {name} have no position, such as {missing[0]!r}."
        raise ValueError(msg)
    spots = positions.loc[barcodes]
    xy = spots[["pxl_col", "pxl_row"]].to_numpy(dtype=float)
    um_per_px = um_per_px_of_visium(spots, xy, name)
    if um_per_px is None:
        msg = f"The positions of section {name} do not lie on Visium's array."
        raise ValueError(msg)
    counts = _matrix(folder)
    if empty := int((counts.sum(axis=1) == 0).sum()):
        logger.info("Section %s: %d spots have no counts.", name, empty)
    return Sample(
        name=name,
        patient="C73",
        counts=counts,
        genes=features[1 if 1 in features else 0],
        obs=spots[["in_tissue", "array_row", "array_col"]],
        xy=xy,
        spot_diameter=_SPOT_UM / um_per_px,
        um_per_px=um_per_px,
        image=lazy_tiff(_image(root, name)),
    )


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    msg = f"There is no {name} in {folder}. Expected are {_LAYOUT}."
    raise FileNotFoundError(msg)


def _lines(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(_file(folder, name), sep="\t", header=None, dtype=str, keep_default_na=False)


def _matrix(folder: Path) -> Any:
    """Return the counts, (n_spots, n_genes); the file holds genes x spots."""
    # scipy's reader is left aside: releases differ in whether they return matrices or arrays, and warn of it
    rows = pd.read_csv(_file(folder, "matrix.mtx"), sep=r"\s+", comment="%", header=None, dtype=int).to_numpy()
    (n_genes, n_spots, _), entries = rows[0], rows[1:]
    return sp.csr_matrix((entries[:, 2], (entries[:, 1] - 1, entries[:, 0] - 1)), shape=(n_spots, n_genes))


def _positions(path: Path) -> pd.DataFrame:
    """Return the spots by barcode; Space Ranger 1 writes no header, Space Ranger 2 does."""
    table = pd.read_csv(_file(path.parent, path.name), header=None, names=_COLUMNS, dtype=str)
    table = table[table["barcode"] != "barcode"].set_index("barcode")
    return table.astype(float).astype({"in_tissue": int, "array_row": int, "array_col": int})


def _image(root: Path, name: str) -> Path:
    found = sorted(p for p in root.rglob(f"*GEX_C73_{name}_Merged.*") if p.suffix.lower() in {".tif", ".tiff"})
    if len(found) != 1:
        sample = f"GSM{_FIRST_SAMPLE + _NUMBER[name] - 1}"
        msg = (
            f"Section {name} needs one image {name}_Merged.tif below {root}, found {len(found)}. Expected: {_LAYOUT}. "
            f"Unpack it from {_GEO}?acc={sample}&format=file&file={sample}_GEX_C73_{name}_Merged.tiff.gz (2.6 GB)."
        )
        raise FileNotFoundError(msg)
    return found[0]
