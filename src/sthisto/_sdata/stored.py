"""Chunks of an image that its store lacks: zarr reads them as black pixels without a word."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
from dask.blockwise import Blockwise
from zarr import Array
from zarr.storage import LocalStore

from sthisto._images.patches import PatchSource
from sthisto._utils.logging import logger


def check_stored(source: PatchSource, image_key: str, region: str) -> None:
    """Look for the chunks that patches are read from, in a store on a local disk.

    zarr does not store a chunk of black pixels, so that black beside the tissue is no fault: a chunk that is missing
    under the center of a spot is.

    Parameters
    ----------
    source
        The patches, of a level of the image.
    image_key, region
        For messages.

    Raises
    ------
    FileNotFoundError
        A spot lies in a chunk that is not there. A patch that only reaches into one is warned of.
    """
    stored = _stored_array(source.level.array)
    if stored is None or not len(source):
        return
    under = _in_missing(stored, source.centers, 0.0)
    if under.any():
        msg = (
            f"Image {image_key!r} is not complete: {under.sum()} of {len(source)} spots of region {region!r} lie in "
            f"chunks that are missing in {stored.store_path}, and would be read as black. The store was probably "
            "copied in part: copy it again."
        )
        raise FileNotFoundError(msg)
    beside = _in_missing(stored, source.centers, source.extent / 2)
    if beside.any():
        logger.warning(
            "%d of %d patches of region %r reach into chunks that image %r lacks, and are black there. If the image is "
            "not black beside the tissue, its store was copied in part.",
            beside.sum(),
            len(source),
            region,
            image_key,
        )


def _stored_array(array: Any) -> Array | None:
    """Return the local zarr array of the same height and width that a dask array is read from, None without one."""
    if not isinstance(array, da.Array):
        return None
    layers = [layer for layer in getattr(array.dask, "layers", {}).values() if not isinstance(layer, Blockwise)]
    found = {id(value): value for layer in layers for value in layer.values() if isinstance(value, Array)}
    fitting = [one for one in found.values() if one.shape[-2:] == array.shape[-2:]]
    is_local = len(fitting) == 1 and isinstance(fitting[0].store, LocalStore)
    return fitting[0] if is_local and fitting[0].fill_value == 0 else None


def _in_missing(stored: Array, centers: np.ndarray, reach: float) -> np.ndarray:
    """Return (n,) whether a square around a center, (n, 2) x and y in px, touches a chunk that is not there."""
    *before, height, width = stored.shape
    chunks = stored.shards or stored.chunks
    size = np.array([chunks[-1], chunks[-2]])
    last = (np.array([width, height]) - 1) // size
    low = np.clip(np.floor((centers - reach) // size).astype(int), 0, last)
    high = np.clip(np.floor((centers + reach) // size).astype(int), 0, last)
    channels = list(product(*(range(-(-n // chunk)) for n, chunk in zip(before, chunks[:-2], strict=True))))
    store: Any = stored.store  # a LocalStore
    root = Path(store.root) / stored.path
    present: dict[tuple[int, int], bool] = {}
    result = np.zeros(len(centers), dtype=bool)
    for i, ((left, top), (right, bottom)) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
        for place in product(range(top, bottom + 1), range(left, right + 1)):
            if place not in present:
                keys = (stored.metadata.encode_chunk_key((*channel, *place)) for channel in channels)
                present[place] = all((root / key).is_file() for key in keys)
            result[i] |= not present[place]
    return result
