"""Files with the features of a slide's tiles: of TRIDENT, CLAM and HEST."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from sthisto._images.pitch import median_pitch
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_choice, listed

TileFormat = Literal["trident", "clam", "hest"]
FORMATS: Final = ("trident", "clam", "hest")
_FEATURES: Final = ("features", "embeddings", "feats")
_BARCODES: Final = ("barcodes", "barcode")
_UM_AT_1X: Final = 10.0
"""µm per px times magnification: 0.5 at 20x."""
_HEST_UM: Final = 112.0
_ALIKE: Final = 0.01
"""How far features of one tile may differ that were computed twice."""


@dataclass(frozen=True)
class Tiles:
    """Features of tiles.

    Attributes
    ----------
    values
        (n_tiles, n_features) float32.
    centers
        (n_tiles, 2) x and y in px of the slide's full resolution.
    width
        Width of a tile in px of the slide's full resolution; their distance where it is unknown.
    width_um
        The same in µm, None where it is unknown.
    barcodes
        (n_tiles,) names of the spots that the tiles lie around, None where there are none.
    is_stated
        Whether the width in px is known.
    """

    values: np.ndarray
    centers: np.ndarray
    width: float
    width_um: float | None = None
    barcodes: np.ndarray | None = None
    is_stated: bool = True


def read_tiles(path: Path, format: TileFormat | None) -> Tiles:  # noqa: A002
    """Read the features of tiles from an HDF5 file.

    Raises
    ------
    FileNotFoundError
        There is no file.
    KeyError
        It lacks features or coordinates.
    ValueError
        It is no HDF5 file, not of that format, or its parts do not fit together.
    """
    import h5py

    if not path.is_file():
        msg = f"There is no file with features at {path}."
        raise FileNotFoundError(msg)
    if format is not None:
        check_choice(format, FORMATS, name="format")
    try:
        with h5py.File(path) as file:
            return _of_file(file, path, format)
    except OSError as error:
        msg = f"{path} can't be read as an HDF5 file: {error}."
        raise ValueError(msg) from error


def _of_file(file: Any, path: Path, format: str | None) -> Tiles:  # noqa: A002
    import h5py

    key = next((name for name in _FEATURES if isinstance(file.get(name), h5py.Dataset)), None)
    if key is None or "coords" not in file:
        msg = f"{path} holds {listed(file)}; expected are 'features' (or 'embeddings') and 'coords'."
        raise KeyError(msg)
    values = np.asarray(file[key], dtype=np.float32)
    values = values.reshape(-1, values.shape[-1])
    corners = _corners(file["coords"], path)
    if not len(values):
        msg = f"{path} holds no tile."
        raise ValueError(msg)
    if len(values) != len(corners):
        msg = f"{path} holds {len(values)} rows of features and {len(corners)} of coordinates."
        raise ValueError(msg)
    attrs = {**dict(file.attrs), **dict(file["coords"].attrs)}
    barcode = next((name for name in _BARCODES if name in file), None)
    barcodes = None if barcode is None else _text(file[barcode])
    if barcodes is not None and len(barcodes) != len(values):
        msg = f"{path} holds {len(values)} rows of features and {len(barcodes)} barcodes."
        raise ValueError(msg)
    _check_once(values, corners, barcodes, path)
    kind = _recognize(attrs, barcodes)
    if format not in (None, kind):
        msg = f"{path} is as {kind.upper()} writes it, not {str(format).upper()}. Leave format=… out."
        raise ValueError(msg)
    logger.info("%s holds %d tiles with %d features, as %s writes them.", path, *values.shape, kind.upper())
    stated, width_um = _width(attrs, kind)
    width = stated or _distance(corners, path)
    if stated is None and kind != "hest":
        logger.warning("%s does not state the width of its tiles: %g px, the distance between them.", path, width)
    return Tiles(values, corners + width / 2, width, width_um, barcodes, is_stated=stated is not None)


def _corners(stored: Any, path: Path) -> np.ndarray:
    """Return (n_tiles, 2) x and y of the upper left corners, which may lie in a further axis of length 1.

    Raises
    ------
    ValueError
        The coordinates have another shape, or are no numbers.
    """
    shape = stored.shape[1:] if stored.ndim == 3 and stored.shape[0] == 1 else stored.shape
    if stored.dtype.kind not in "iuf" or len(shape) != 2 or shape[1] != 2:
        msg = (
            f"'coords' of {path} are of {stored.dtype} and the shape {stored.shape}; expected is (n_tiles, 2), x and y "
            "of the upper left corner of each tile in px of the full resolution."
        )
        raise ValueError(msg)
    return np.asarray(stored, dtype=float).reshape(shape)


def _check_once(values: np.ndarray, corners: np.ndarray, barcodes: np.ndarray | None, path: Path) -> None:
    """Raise ValueError where two tiles of one place, or of one name, have different features."""
    keys = corners if barcodes is None else barcodes[:, None]
    _, first, place, count = np.unique(keys, axis=0, return_index=True, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(count[place.ravel()] > 1)
    alike = np.isclose(
        values[repeated], values[first[place.ravel()[repeated]]], rtol=_ALIKE, atol=_ALIKE, equal_nan=True
    )
    other = repeated[~alike.all(axis=1)]
    if len(other):
        where = keys[other[0]].tolist()
        msg = (
            f"{path} holds other features of a tile a second time, {len(other)} in all, such as of {where}. Are these "
            "tiles of several slides, or of several magnifications? Keep one of each."
        )
        raise ValueError(msg)


def _text(stored: Any) -> np.ndarray:
    flat = np.asarray(stored).ravel()
    return np.array([one.decode() if isinstance(one, bytes) else str(one) for one in flat])


def _recognize(attrs: dict[str, Any], barcodes: np.ndarray | None) -> str:
    if "patch_size_level0" in attrs:
        return "trident"
    return "clam" if barcodes is None else "hest"


def _width(attrs: dict[str, Any], kind: str) -> tuple[float | None, float | None]:
    """Return the width of a tile in px of the full resolution, and in µm, where they are stated."""
    size = _number(attrs.get("patch_size"))
    if kind == "trident":
        magnification = _number(attrs.get("target_magnification"))
        width_um = size * _UM_AT_1X / magnification if size and magnification else None
        return _number(attrs.get("patch_size_level0")), width_um
    if kind == "hest":
        return _number(attrs.get("patch_size_src")), _HEST_UM
    downsample = _number(attrs.get("downsample")) or (None if _number(attrs.get("patch_level")) else 1.0)
    return size * downsample if size and downsample else None, None


def _distance(corners: np.ndarray, path: Path) -> float:
    """Return the distance of neighboring tiles, (n, 2) corners, in x or y."""
    places = np.unique(corners, axis=0)
    if len(places) < 2:
        msg = f"{path} does not state the width of its tiles, and a single place does not tell it."
        raise ValueError(msg)
    return median_pitch(places, norm=np.inf)


def _number(value: Any) -> float | None:
    """Return the first number of an attribute, which may be an array; None without."""
    try:
        number = float(np.ravel(np.asarray(value, dtype=float))[0])
    except (TypeError, ValueError, IndexError):
        return None
    return number if number > 0 else None
