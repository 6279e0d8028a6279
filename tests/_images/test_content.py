from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pytest

from sthisto._images.content import OF_CONTENT, pixel_digest, stored_digest
from sthisto._images.pyramid import Level

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 40, 30), dtype=np.uint8)


def level(array) -> Level:
    return Level(array, np.eye(3))


def lazily(pixels: np.ndarray, key: str) -> da.Array:
    return da.from_delayed(dask.delayed(lambda: pixels)(dask_key_name=key), pixels.shape, pixels.dtype)


@pytest.mark.parametrize("chunks", [(3, 40, 30), (3, 16, 16)])
def test_arrays_in_memory_are_recognized_without_being_computed(chunks):
    one, other = (da.from_array(pixels, chunks=chunks) for pixels in (PIXELS, PIXELS.copy()))
    assert stored_digest(level(one)) == stored_digest(level(other)) != ""
    changed = PIXELS.copy()
    changed[1, 20, 10] += 1
    assert stored_digest(level(da.from_array(changed, chunks=chunks))) != stored_digest(level(one))


@pytest.mark.parametrize("chunks", [(3, 40, 30), (3, 16, 16)])
def test_pixels_that_change_in_place_are_not_taken_for_the_old_ones(chunks):
    pixels = PIXELS.copy()
    array = da.from_array(pixels, chunks=chunks)
    before = stored_digest(level(array))
    pixels[:, :5] = 0
    seen = (array[:, :5].compute() == 0).all()  # dask copies some arrays
    assert (stored_digest(level(array)) != before) == seen


def test_what_is_done_with_the_pixels_is_part_of_the_digest():
    array = da.from_array(PIXELS, chunks=(3, 16, 16))
    digests = {stored_digest(level(one)) for one in (array, array[::-1], array[:, ::2], da.maximum(array, 7))}
    assert len(digests) == 4
    assert stored_digest(Level(array, np.eye(3), brightness=2.0)) not in digests


def test_tasks_of_unknown_content_are_read():
    unknown = level(lazily(PIXELS, "decode-1"))
    assert stored_digest(unknown) == ""
    assert pixel_digest(unknown) == pixel_digest(level(PIXELS))
    assert pixel_digest(unknown) != pixel_digest(level(lazily(PIXELS[:, ::-1], "decode-1")))


def test_tasks_named_by_their_content_are_not_read():
    one, other = (level(lazily(PIXELS, f"{OF_CONTENT}{name}")) for name in ("a", "b"))
    assert pixel_digest(one) == stored_digest(one) != ""
    assert stored_digest(one) != stored_digest(other)
