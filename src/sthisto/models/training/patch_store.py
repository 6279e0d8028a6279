"""The patches that an encoder is trained on: in memory while they are few, else in a temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from math import prod

import numpy as np

from sthisto._images.patches import PatchSource
from sthisto._utils.logging import logger
from sthisto._utils.settings import settings
from sthisto.models.data import TrainingSection


def read_patches(sources: Sequence[PatchSource]) -> np.ndarray:
    """Return all patches of some sources, one source after the other: (n, size, size, 3) uint8.

    Above ``settings.image_memory`` they lie in a file of the temporary folder that goes with the array, and batches
    are read from there.
    """
    shape = (sum(len(source) for source in sources), sources[0].size, sources[0].size, 3)
    patches = _allocate(shape)
    start = 0
    for source in sources:
        for index, batch in source.batches():
            patches[start + index] = batch
        start += len(source)
    return patches


def read_training_patches(sections: Sequence[TrainingSection], rows: str) -> np.ndarray:
    """Return the patches of the "train" or "validation" rows of all sections, as `read_patches`.

    Raises
    ------
    ValueError
        There is more than one width of context: an encoder is trained on the patch alone.
    """
    if any(len(section.inputs.patches) > 1 for section in sections):
        msg = "finetune=True trains on the patch alone; leave out `context`."
        raise ValueError(msg)
    return read_patches([section.inputs.patches[0].subset(section.rows(rows)) for section in sections])


def _allocate(shape: tuple[int, ...]) -> np.ndarray:
    gib = prod(shape) / 2**30
    if gib <= settings.image_memory:
        return np.empty(shape, dtype=np.uint8)
    folder = tempfile.gettempdir()
    logger.info("%d patches take %.1f GiB: they are kept in a file in %s while training.", shape[0], gib, folder)
    with tempfile.TemporaryFile(dir=folder, prefix="sthisto-patches-") as file:
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)
