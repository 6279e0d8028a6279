"""Samples of HEST-1k: spatial transcriptomics with H&E, as whole slides or as patches, in one layout."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sthisto._sdata.columns import read_numbers
from sthisto._utils.arguments import checked
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed
from sthisto.io._coordinates import read_coordinates
from sthisto.io._reading import read_anndata, reading
from sthisto.io._samples import Sample, assemble, lazy_tiff

if TYPE_CHECKING:
    from spatialdata import SpatialData

_LAYOUT = "st/<id>.h5ad, metadata/<id>.json, and wsis/<id>.tif or patches/<id>.h5"
_PATCH_UM_PER_PX = 0.5
_PIXEL_SIZE = "pixel_size_um_estimated"
_SPOT_UM = 55.0
_WHITE = 255
_READ_AT_ONCE = 256


@checked()
def hest(path: str | os.PathLike[str], *, samples: Sequence[str] | None = None) -> SpatialData:
    """Read samples of HEST-1k from its folders ``st``, ``metadata``, and ``wsis`` or ``patches``.

    The whole slide is used if it is available; JPEG-compressed slides need ``pip install imagecodecs``. Otherwise the
    image is assembled from the patches (224 px at 0.5 µm around each spot) on white, which supports patches of up to
    112 µm without context.

    Parameters
    ----------
    path
        Folder that the samples were downloaded to.
    samples
        Ids such as ``["TENX95"]``. None reads all samples in ``st``.

    Returns
    -------
    For sample ``"TENX95"``, in the coordinate system ``"TENX95"``, whose unit is a px of the image:
    ``images["TENX95_image"]``, decoded when it is used, and ``shapes["TENX95_spots"]``. ``tables["counts"]`` holds
    what is in the samples' ``X``, genes united; ``obs`` has "section" (the id), "patient" and what the samples have.
    Patients are named within their data set; samples of a data set that names no patient count as one patient, since
    they may be. ``attrs`` holds the µm per px: "pixel_size_um_estimated" of the metadata, or 0.5 of patches. Spots
    without a patch, which HEST-1k found off the tissue, are left out where the image is laid out of patches.

    Raises
    ------
    FileNotFoundError
        A file is missing; the message lists the files that are needed.
    KeyError
        A sample, its coordinates or its pixel size is missing.
    ValueError
        No patch belongs to a spot of the sample, it has no counts, or its pixel size is no positive number.

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
    slide, patches = root / "wsis" / f"{name}.tif", root / "patches" / f"{name}.h5"
    metadata = root / "metadata" / f"{name}.json"
    missing = [] if metadata.is_file() else [str(metadata)]
    if not (slide.is_file() or patches.is_file()):
        missing.append(f"{slide} or {patches}")
    if missing:
        msg = f"Sample {name!r} lacks {listed(missing)}. Expected are {_LAYOUT}."
        raise FileNotFoundError(msg)
    about, um_per_px = _read_metadata(metadata)
    adata = read_anndata(root / "st" / f"{name}.h5ad")
    check_key("spatial", adata.obsm, name="coordinates", where=f"obsm of sample {name!r}")
    if adata.X is None:
        msg = f"Sample {name!r} has no X, which holds the counts."
        raise ValueError(msg)
    sample = Sample(
        name=name,
        patient=_patient(about, name),
        counts=adata.X,
        genes=list(adata.var_names),
        obs=adata.obs[[column for column in ("in_tissue", "array_row", "array_col") if column in adata.obs]],
        xy=read_coordinates(adata, "spatial"),
        spot_diameter=_spot_diameter(adata.uns.get("spatial", {}), about, um_per_px),
        um_per_px=um_per_px,
        image=None,
    )
    return replace(sample, image=lazy_tiff(slide)) if slide.is_file() else _laid_out(sample, patches, um_per_px)


def _read_metadata(path: Path) -> tuple[dict[str, Any], float]:
    """Return the metadata of a sample, and the µm per px that it states.

    Raises
    ------
    KeyError
        It states none.
    ValueError
        It can't be read, or states no positive number.
    """
    with reading(path):
        about = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(about, dict):
        msg = f"{path} holds {type(about).__name__}; expected is an object with {_PIXEL_SIZE!r}."
        raise ValueError(msg)
    check_key(_PIXEL_SIZE, about, name="pixel size", where=str(path))
    um_per_px = float(read_numbers([about[_PIXEL_SIZE]])[0])
    if not um_per_px > 0:
        msg = f"{path} gives {_PIXEL_SIZE!r} as {about[_PIXEL_SIZE]!r}; expected is a positive number of µm per px."
        raise ValueError(msg)
    return about, um_per_px


def _laid_out(sample: Sample, path: Path, um_per_px: float) -> Sample:
    """Return the spots that have a patch, with an image laid out of the patches, each where its spot is.

    Patches are moved to whole pixels; where they overlap the later one is seen.
    """
    import dask.array as da
    import h5py
    from dask import delayed

    with h5py.File(path) as file:
        size = int(file["img"].shape[1])
        barcodes = np.asarray(file["barcode"]).ravel().astype(str)
    spots = sample.obs.index.get_indexer(barcodes)
    if not (spots >= 0).any():
        msg = f"No patch of {path} belongs to a spot of sample {sample.name!r}: it names {listed(barcodes[:3])}."
        raise ValueError(msg)
    order = np.argsort(spots[spots >= 0])
    patches, spots = np.flatnonzero(spots >= 0)[order], np.sort(spots[spots >= 0])
    logger.info("Sample %s: %d of %d spots have a patch.", sample.name, len(spots), len(sample.obs))
    enlarged = um_per_px / _PATCH_UM_PER_PX
    corners = np.round(sample.xy[spots] * enlarged - size / 2).astype(int)
    corners -= corners.min(axis=0)
    width, height = (int(side) for side in corners.max(axis=0) + size)
    pixels = da.from_delayed(delayed(_paste)(path, patches, corners, (height, width)), (height, width, 3), np.uint8)
    return replace(
        sample,
        counts=sample.counts[spots],
        obs=sample.obs.iloc[spots],
        xy=corners + size / 2,
        spot_diameter=sample.spot_diameter * enlarged,
        um_per_px=_PATCH_UM_PER_PX,
        image=pixels.rechunk((min(height, 2048), min(width, 2048), 3)),
    )


def _paste(path: Path, patches: np.ndarray, corners: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return (height, width, 3) with each of `patches`, by its number in the file, at its corner's x and y."""
    import h5py

    image = np.full((*shape, 3), _WHITE, dtype=np.uint8)
    corner_of = dict(zip(patches.tolist(), corners.tolist(), strict=True))
    with h5py.File(path) as file:
        stored = file["img"]
        for start in range(0, len(stored), _READ_AT_ONCE):
            for number, pixels in enumerate(stored[start : start + _READ_AT_ONCE], start):
                if number in corner_of:
                    x, y = corner_of[number]
                    image[y : y + len(pixels), x : x + len(pixels)] = pixels[..., :3]
    return image


def _patient(about: Mapping[str, Any], name: str) -> str:
    data_set, patient = about.get("dataset_title"), about.get("patient")
    if not data_set and not patient:
        return name
    return f"{data_set or name}: {patient or 'unnamed'}"


def _spot_diameter(spatial: Mapping[str, Any], about: Mapping[str, Any], um_per_px: float) -> float:
    """Return the diameter of a spot in px: as the sample states it, else Visium's 55 µm."""
    for entry in spatial.values():
        if isinstance(entry, Mapping) and "spot_diameter_fullres" in entry.get("scalefactors", {}):
            return float(entry["scalefactors"]["spot_diameter_fullres"])
    stated = float(read_numbers([about.get("spot_diameter")])[0])
    return stated if stated > 0 else _SPOT_UM / um_per_px
