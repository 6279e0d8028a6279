"""Four serial Visium sections of a healthy human liver, GSE240429."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import scipy.sparse as sp

from sthisto._sdata.resolution import um_per_px_of_visium
from sthisto._utils.arguments import checked
from sthisto._utils.logging import logger
from sthisto._utils.settings import settings
from sthisto._utils.validate import check_key
from sthisto.datasets._liver_files import LAYOUT, NUMBER, download, find_file, find_image, sections_in
from sthisto.io._samples import Sample, assemble, lazy_tiff

if TYPE_CHECKING:
    from spatialdata import SpatialData

_SPOT_UM = 55.0
_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row", "pxl_col"]


@checked()
def liver(path: str | os.PathLike[str] | None = None, *, sections: Sequence[str] | None = None) -> SpatialData:
    """Read the liver sections that BLEEP and DANet were published on: A1, B1, C1 and D1 of donor C73.

    They are serial sections of one donor, so scores of one section by a model of the others do not generalize to new
    patients.

    Parameters
    ----------
    path
        Folder with the files of GEO's GSE240429, under GEO's names (``GSE240429_RAW.tar``, the images unpacked) or in
        the layout of BLEEP's repository. None takes ``settings.cache_dir / "liver"``, where missing files are
        downloaded to from GEO; the image of a section has 2.6 GB. An interrupted download is resumed with the next
        file. GEO publishes no checksums, so a file is checked by gzip's own when it arrives, and against the SHA-256 of
        its first download whenever it is read.
    sections
        Names such as ``["C1"]``. None reads all available sections, or downloads all four.

    Returns
    -------
    For section ``"C1"``, in the coordinate system ``"C1"``, whose unit is a px of the image: ``images["C1_image"]``,
    decoded when it is used, and ``shapes["C1_spots"]``, circles of 55 µm. ``tables["counts"]`` holds raw counts and
    ``obs`` "section", "patient", "in_tissue", "array_row", "array_col". Barcodes of counts and positions are matched by
    name; counts of duplicated symbols are summed; spots without counts are kept. ``attrs`` holds the µm per
    px, from the array.

    Raises
    ------
    FileNotFoundError
        A file is missing; the message lists the files that are needed.
    KeyError
        A section does not exist.
    ValueError
        Counts and positions name different spots, or a downloaded file arrived damaged.
    OSError
        The download failed; the message lists the files that are needed.

    References
    ----------
    Andrews et al., Journal of Hepatology 2024, doi:10.1016/j.jhep.2023.12.023; Xie et al., BLEEP, NeurIPS 2023. Data:
    GEO accession GSE240429.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.liver("GSE240429_data")  # doctest: +SKIP
    """
    if path is None:
        root = settings.cache_dir / "liver"
        _download(root, sections)
    else:
        root = Path(path).expanduser()
    there = sections_in(root)
    if not there:
        msg = f"{root} does not hold the liver sections. Download GSE240429 from GEO and put there {LAYOUT}."
        raise FileNotFoundError(msg)
    chosen = there if sections is None else list(dict.fromkeys(sections))
    for name in chosen:
        check_key(name, there, name="sections", where="the folder")
    return assemble([_read(root, name) for name in chosen])


def _download(root: Path, sections: Sequence[str] | None) -> None:
    for name in sections or ():
        check_key(name, NUMBER, name="sections", where="GSE240429")
    try:
        download(root, sections or NUMBER)
    except OSError as error:
        msg = f"{error} To work without network, put into {root}, or into a folder that `path` names, {LAYOUT}."
        raise OSError(msg) from error


def _read(root: Path, name: str) -> Sample:
    barcodes = _lines(find_file(root, name, "barcodes.tsv"))[0]
    features = _lines(find_file(root, name, "features.tsv"))
    positions = _positions(find_file(root, name, "tissue_positions_list.csv"))
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
    counts = _matrix(find_file(root, name, "matrix.mtx"))
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
        image=lazy_tiff(find_image(root, name)),
    )


def _lines(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", header=None, dtype=str, keep_default_na=False)


def _matrix(path: Path) -> Any:
    """Return the counts, (n_spots, n_genes); the file holds genes x spots."""
    # scipy's reader is left aside: releases differ in whether they return matrices or arrays, and warn of it
    rows = pd.read_csv(path, sep=r"\s+", comment="%", header=None, dtype=int).to_numpy()
    (n_genes, n_spots, _), entries = rows[0], rows[1:]
    return sp.csr_matrix((entries[:, 2], (entries[:, 1] - 1, entries[:, 0] - 1)), shape=(n_spots, n_genes))


def _positions(path: Path) -> pd.DataFrame:
    """Return the spots by barcode; Space Ranger 1 writes no header, Space Ranger 2 does."""
    table = pd.read_csv(path, header=None, names=_COLUMNS, dtype=str)
    table = table[table["barcode"] != "barcode"].set_index("barcode")
    return table.astype(float).astype({"in_tissue": int, "array_row": int, "array_col": int})
