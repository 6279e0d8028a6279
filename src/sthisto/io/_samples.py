"""Samples read from files of any layout, put together as one SpatialData."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from sthisto._sdata.slots import KEY, UM_PER_UNIT
from sthisto.io._slide import SlideFile

if TYPE_CHECKING:
    from spatialdata import SpatialData


@dataclass(frozen=True)
class Sample:
    """One section.

    Attributes
    ----------
    counts
        (n_spots, n_genes) raw counts; `genes` may repeat.
    obs
        Of the spots, indexed by barcode.
    xy
        (n_spots, 2) centers in px of the image.
    spot_diameter
        In px of the image.
    um_per_px
        None where it is unknown.
    image
        Dask array of the full resolution, (height, width, channels) or (channels, height, width).
    """

    name: str
    patient: str
    counts: Any
    genes: Sequence[str]
    obs: pd.DataFrame
    xy: np.ndarray
    spot_diameter: float
    um_per_px: float | None
    image: Any


def assemble(samples: Sequence[Sample]) -> SpatialData:
    """Return the samples as regions of one table, each with its image; genes are united, those not listed are 0."""
    from anndata import AnnData

    from sthisto.io._from_anndata import from_anndata

    listed = [pd.Index(list(map(str, sample.genes))) for sample in samples]
    genes = pd.Index(np.concatenate([names.unique() for names in listed])).unique()
    counts = [_widen(sample.counts, names, genes) for sample, names in zip(samples, listed, strict=True)]
    n_sections = np.sum([genes.isin(names) for names in listed], axis=0)
    adata = AnnData(
        sp.vstack(counts, format="csr"),
        obs=pd.concat([_observations(sample) for sample in samples]),
        var=pd.DataFrame({"n_sections": n_sections}, index=genes),
        obsm={"spatial": np.concatenate([sample.xy for sample in samples])},
        uns={"spatial": {one.name: {"scalefactors": {"spot_diameter_fullres": one.spot_diameter}} for one in samples}},
    )
    images = {sample.name: sample.image for sample in samples}
    sdata = from_anndata(adata, image=images, library_key="section", table_key="counts")
    known = {sample.name: float(sample.um_per_px) for sample in samples if sample.um_per_px is not None}
    sdata.attrs[KEY] = {UM_PER_UNIT: sdata.attrs[KEY][UM_PER_UNIT] | known}
    return sdata


def lazy_tiff(path: Path) -> Any:
    """Return the full resolution of a TIFF's largest image in color as a dask array (height, width, 3), uint8.

    Raises
    ------
    ValueError
        The file holds no image in color.
    """
    return SlideFile.at(path).levels()[0].transpose(1, 2, 0)


def _observations(sample: Sample) -> pd.DataFrame:
    obs = sample.obs.copy()
    obs.index = pd.Index([f"{sample.name}_{barcode}" for barcode in obs.index])
    return obs.assign(section=sample.name, patient=sample.patient)


def _widen(counts: Any, names: pd.Index, genes: pd.Index) -> sp.csr_matrix:
    """Return counts with a column for every gene of all, (n_spots, n_genes); those of repeated symbols are added up."""
    own = sp.coo_matrix(counts)
    columns = genes.get_indexer(names)[own.col]
    values = own.data.astype(np.float32)
    return sp.coo_matrix((values, (own.row, columns)), shape=(own.shape[0], len(genes))).tocsr()
