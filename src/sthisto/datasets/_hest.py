"""Samples of HEST-1k: spatial transcriptomics with whole-slide H&E in one layout."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto._validate import check_key, listed
from sthisto.datasets._samples import Sample, assemble

if TYPE_CHECKING:
    from spatialdata import SpatialData

_LAYOUT = "st/<id>.h5ad, wsis/<id>.tif and metadata/<id>.json"


def hest(path: str | os.PathLike[str], *, samples: Sequence[str] | None = None) -> SpatialData:
    """Read samples of HEST-1k from its folders ``st``, ``wsis`` and ``metadata``.

    The whole slides are needed: from patches alone neither context nor other patch sizes can be cut.

    Parameters
    ----------
    path
        Folder that the samples were downloaded to.
    samples
        Ids such as ``["TENX95"]``. None reads all of ``st``.

    Returns
    -------
    For sample ``"TENX95"``, in the coordinate system ``"TENX95"``, whose unit is a px of the slide:
    ``images["TENX95_image"]``, decoded when it is used, and ``shapes["TENX95_spots"]``. ``tables["counts"]`` holds
    what is in the samples' ``X``, genes united; ``obs`` has "section" (the id), "patient" and what the samples have.
    Patients are named within their data set; samples of a data set that names no patient count as one patient, since
    they may be. ``attrs`` holds the µm per px, "pixel_size_um_estimated" of the metadata.

    Raises
    ------
    FileNotFoundError
        A file is missing; the message says what to put where.
    KeyError
        A sample, its coordinates or its pixel size is not there.

    References
    ----------
    Jaume et al., HEST-1k, NeurIPS 2024 Datasets and Benchmarks. Data: the data set MahmoodLab/hest on Hugging Face,
    after accepting its terms.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.hest("hest_data", samples=["TENX95"])  # doctest: +SKIP
    """
    root = Path(path).expanduser()
    there = sorted(file.stem for file in (root / "st").glob("*.h5ad"))
    if not there:
        msg = (
            f"{root} holds no samples of HEST-1k. Download some of the data set MahmoodLab/hest from Hugging Face and "
            f"put there: {_LAYOUT}."
        )
        raise FileNotFoundError(msg)
    chosen = there if samples is None else list(dict.fromkeys(samples))
    for name in chosen:
        check_key(name, there, name="samples", where=f"{root / 'st'}")
    return assemble([_read(root, name) for name in chosen])


def _read(root: Path, name: str) -> Sample:
    from anndata import read_h5ad

    slide, metadata = root / "wsis" / f"{name}.tif", root / "metadata" / f"{name}.json"
    if missing := [file for file in (slide, metadata) if not file.is_file()]:
        msg = f"Sample {name!r} lacks {listed(str(file) for file in missing)}. Expected are {_LAYOUT}."
        raise FileNotFoundError(msg)
    about: dict[str, Any] = json.loads(metadata.read_text(encoding="utf-8"))
    check_key("pixel_size_um_estimated", about, name="pixel size", where=str(metadata))
    adata = read_h5ad(root / "st" / f"{name}.h5ad")
    check_key("spatial", adata.obsm, name="coordinates", where=f"obsm of sample {name!r}")
    um_per_px = float(about["pixel_size_um_estimated"])
    return Sample(
        name=name,
        patient=_patient(about, name),
        counts=adata.X,
        genes=list(adata.var_names),
        obs=adata.obs[[column for column in ("in_tissue", "array_row", "array_col") if column in adata.obs]],
        xy=np.asarray(adata.obsm["spatial"], dtype=float)[:, :2],
        spot_diameter=_spot_diameter(adata.uns.get("spatial", {}), about, um_per_px),
        um_per_px=um_per_px,
        image=slide,
    )


def _patient(about: Mapping[str, Any], name: str) -> str:
    data_set, patient = about.get("dataset_title"), about.get("patient")
    if not data_set and not patient:
        return name
    return f"{data_set or name}: {patient or 'unnamed'}"


def _spot_diameter(spatial: Mapping[str, Any], about: Mapping[str, Any], um_per_px: float) -> float:
    """Return the diameter of a spot in px: as the sample states it, else Visium's 55 µm."""
    for entry in spatial.values():
        if "spot_diameter_fullres" in entry.get("scalefactors", {}):
            return float(entry["scalefactors"]["spot_diameter_fullres"])
    return float(about.get("spot_diameter") or 55.0 / um_per_px)
