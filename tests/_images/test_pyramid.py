from collections import Counter

import dask.array as da
import numpy as np
import pytest

from sthisto import settings
from sthisto._images.pyramid import Level, Pyramid


class CountingArray:
    """An array that counts how often each of its values is read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, values.ndim
        self.reads = Counter()

    def __getitem__(self, box):
        self.reads[tuple((s.start, s.stop) for s in box[1:])] += 1
        return self.values[box]


def counting_level(shape, chunks):
    values = np.random.default_rng(0).integers(0, 256, (3, *shape), dtype=np.uint8)
    counting = CountingArray(values)
    return values, counting, Level(da.from_array(counting, chunks=chunks, meta=values[:0, :0, :0]), np.eye(3))


def boxes_of(corners, window):
    corners = np.asarray(corners)[np.lexsort(np.asarray(corners).T)]
    return np.hstack([corners, corners + window])


@pytest.mark.parametrize("chunks", [(3, 64, 64), (1, 64, 50), (3, (7, 193, 30, 70), (100, 1, 199)), (3, 300, 300)])
@pytest.mark.parametrize("window", [1, 20, 150])
def test_every_box_comes_whole_and_every_chunk_is_read_at_most_once(chunks, window):
    values, counting, level = counting_level((300, 300), chunks)
    boxes = boxes_of(np.random.default_rng(1).integers(0, 301 - window, (60, 2)), window)
    done = 0
    for band in level.bands(boxes):
        ready = int(np.searchsorted(boxes[:, 3], band.bottom, side="right"))
        for left, top, right, bottom in boxes[done:ready]:
            cut = band.pixels[top - band.top : bottom - band.top, left:right]
            np.testing.assert_array_equal(cut, np.moveaxis(values[:, top:bottom, left:right], 0, -1))
        done = ready
    assert done == len(boxes)
    per_place = 3 if chunks[0] == 1 else 1
    assert counting.reads
    assert set(counting.reads.values()) == {per_place}


def test_chunks_that_no_box_touches_are_not_read(monkeypatch):
    monkeypatch.setattr("sthisto._images.pyramid._JOINED_ROWS", 50)
    _, counting, level = counting_level((300, 300), (3, 50, 50))
    list(level.bands(boxes_of([[0, 0], [240, 5], [10, 270]], 20)))
    assert set(counting.reads) == {
        ((0, 50), (0, 50)),
        ((0, 50), (200, 250)),
        ((0, 50), (250, 300)),
        ((250, 300), (0, 50)),
    }


def test_a_row_of_chunks_beyond_the_memory_cap_is_read_in_parts(monkeypatch):
    monkeypatch.setattr(settings, "image_memory", 2 * 3 * 300 * 40 / 2**30)
    values, _, level = counting_level((300, 300), (3, 300, 50))
    bands = list(level.bands(boxes_of([[x, y] for x in range(0, 281, 20) for y in range(0, 281, 20)], 20)))
    assert max(len(band.pixels) for band in bands) <= 40 + 20
    pixels = np.vstack([band.pixels[-min(len(band.pixels), 40) :] for band in bands])[-20:]
    np.testing.assert_array_equal(pixels, np.moveaxis(values, 0, -1)[-20:])


def test_an_array_in_memory_is_not_copied_whole():
    level = Level(np.zeros((3, 5000, 40), dtype=np.uint8), np.eye(3))
    boxes = boxes_of([[0, y] for y in range(0, 4900, 10)], 30)
    assert max(len(band.pixels) for band in level.bands(boxes)) <= 1024 + 30


def test_floats_are_brought_to_0_to_255_and_rounded():
    values = np.array([0.0, 0.5, 0.999, 1.0], dtype=np.float32)
    level = Level(np.broadcast_to(values, (3, 1, 4)), np.eye(3), brightness=255.0)
    assert level.read(0, 1, 0, 4)[0, :, 0].tolist() == [0, 128, 255, 255]


def pyramid(height=400, width=600, factors=(1, 2, 4)):
    full = np.random.default_rng(0).integers(0, 256, (3, height, width), dtype=np.uint8)
    levels = [
        Level(da.from_array(full[:, ::f, ::f], chunks=(3, 128, 128)), np.diag([1 / f, 1 / f, 1])) for f in factors
    ]
    return full, Pyramid(tuple(levels))


@pytest.mark.parametrize(("wanted", "expected"), [(0.5, 1), (1, 1), (1.9, 1), (1.99, 2), (3.5, 2), (4, 4), (100, 4)])
def test_the_coarsest_level_that_is_fine_enough_is_chosen(wanted, expected):
    assert pyramid()[1].level_for(wanted).downsample == pytest.approx(expected)


def test_an_overview_of_a_small_image_is_the_image():
    full, image = pyramid()
    picture, extent = image.overview()
    np.testing.assert_array_equal(picture, np.moveaxis(full, 0, -1))
    assert extent == (0, 600, 400, 0)


def test_an_overview_of_a_box_is_clipped_and_its_extent_says_where_it_lies():
    full, image = pyramid()
    picture, (left, right, bottom, top) = image.overview(box=(-50, 100.5, 200.2, 180))
    assert (left, right, bottom, top) == (0, 201, 180, 100)
    np.testing.assert_array_equal(picture, np.moveaxis(full[:, 100:180, 0:201], 0, -1))


@pytest.mark.parametrize("max_size", [37, 90, 300])
def test_an_overview_keeps_what_it_shows_in_place(max_size):
    full = np.zeros((3, 2600, 1300), dtype=np.uint8)
    full[:, 2000:2200, 300:400] = 255
    image = Pyramid((Level(da.from_array(full, chunks=(3, 500, 500)), np.eye(3)),))
    picture, (left, right, bottom, top) = image.overview(max_size=max_size)
    assert max(picture.shape) == max_size
    bright = picture[..., 0] / picture[..., 0].sum()
    y = top + (bright.sum(axis=1) @ (np.arange(picture.shape[0]) + 0.5)) * (bottom - top) / picture.shape[0]
    x = left + (bright.sum(axis=0) @ (np.arange(picture.shape[1]) + 0.5)) * (right - left) / picture.shape[1]
    assert (x, y) == pytest.approx((350, 2100), abs=0.1 * 2600 / max_size)


def test_a_box_outside_the_image_is_refused():
    with pytest.raises(ValueError, match="outside the image of 600 x 400 px"):
        pyramid()[1].overview(box=(700, 0, 800, 100))
