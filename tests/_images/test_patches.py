import threading
import time

import dask.array as da
import numpy as np
import pytest
from PIL import Image

from sthisto import settings
from sthisto._images.patches import PatchSource, PatchSpec, read_once
from sthisto._images.prefetch import read_ahead
from sthisto._images.pyramid import Level


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (3, 333, 417), dtype=np.uint8)


def dask_level(image, chunks=(3, 100, 64)):
    return Level(da.from_array(image, chunks=chunks), np.eye(3))


def padded_slice(image, x, y, size):
    """Cut from a padded copy of the whole image: the second implementation."""
    padded = np.pad(np.moveaxis(image, 0, -1), ((size, size), (size, size), (0, 0)), mode="reflect")
    left, top = int(np.floor(x - size / 2 + 0.5)) + size, int(np.floor(y - size / 2 + 0.5)) + size
    return padded[top : top + size, left : left + size]


@pytest.mark.parametrize("size", [1, 32, 33, 150])
def test_patches_are_slices_of_the_image_reflected_at_its_border(image, size):
    rng = np.random.default_rng(1)
    centers = np.vstack([rng.uniform(0, [417, 333], (50, 2)), [[0, 0], [416.99, 332.99], [0, 332.5], [416.5, 0]]])
    patches = PatchSource(dask_level(image), centers, extent=size, size=size).read()
    expected = np.stack([padded_slice(image, x, y, size) for x, y in centers])
    np.testing.assert_array_equal(patches, expected)


def test_numpy_and_dask_images_give_the_same_patches(image):
    centers = np.random.default_rng(2).uniform(0, [417, 333], (40, 2))
    sources = [
        PatchSource(level, centers, extent=40, size=40) for level in (dask_level(image), Level(image, np.eye(3)))
    ]
    np.testing.assert_array_equal(sources[0].read(), sources[1].read())


@pytest.mark.parametrize("extent", [20.0, 44.8, 61.3, 128.0])
def test_resampled_patches_hold_their_exact_extent(image, extent):
    smooth = np.asarray(Image.fromarray(np.moveaxis(image, 0, -1)).resize((52, 42)).resize((417, 333), Image.BICUBIC))
    centers = np.random.default_rng(3).uniform([130, 130], [280, 200], (20, 2))
    source = PatchSource(Level(np.moveaxis(smooth, -1, 0), np.eye(3)), centers, extent=extent, size=32)
    whole = Image.fromarray(smooth)
    for patch, (x, y) in zip(source.read(), centers, strict=True):
        box = (x - extent / 2, y - extent / 2, x + extent / 2, y + extent / 2)
        expected = np.asarray(whole.resize((32, 32), Image.Resampling.BILINEAR, box=box))[2:-2, 2:-2]
        assert np.abs(patch[2:-2, 2:-2].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("extent", [10.0, 25.0, 70.5])
@pytest.mark.parametrize(("height", "width"), [(30, 20), (1, 20), (1, 1)])
def test_patches_wider_than_the_image_are_filled_by_reflection(height, width, extent):
    level = Level(np.full((3, height, width), 7, dtype=np.uint8), np.eye(3))
    centers = np.array([[0.0, 0.0], [width, height], [width / 2, height / 2]])
    patches = PatchSource(level, centers, extent=extent, size=25).read()
    assert (patches == 7).all()


def test_batches_hold_every_patch_once(image):
    centers = np.random.default_rng(4).uniform(0, [417, 333], (50, 2))
    source = PatchSource(dask_level(image), centers, extent=16, size=16)
    batches = list(source.batches(8))
    assert [len(index) for index, _ in batches] == [8] * 6 + [2]
    index = np.concatenate([index for index, _ in batches])
    assert sorted(index) == list(range(50))
    np.testing.assert_array_equal(np.concatenate([patches for _, patches in batches]), source.read()[index])


def test_the_size_of_a_batch_comes_from_the_settings(image, monkeypatch):
    monkeypatch.setattr(settings, "batch_size", 20)
    source = PatchSource(dask_level(image), np.full((30, 2), 50.0), extent=8, size=8)
    assert [len(index) for index, _ in source.batches()] == [20, 10]


def test_a_batch_is_not_overwritten_by_the_next(image):
    source = PatchSource(dask_level(image), np.random.default_rng(5).uniform(0, 300, (40, 2)), extent=8, size=8)
    kept = [(index, patches, patches.copy()) for index, patches in source.batches(4)]
    assert all((patches == copied).all() for _, patches, copied in kept)


def test_a_subset_has_the_patches_at_the_index_in_its_order(image):
    source = PatchSource(dask_level(image), np.random.default_rng(6).uniform(0, 300, (20, 2)), extent=21.5, size=16)
    index = np.array([7, 3, 3, 19])
    np.testing.assert_array_equal(source.subset(index).read(), source.read()[index])


def test_no_centers_give_no_batches(image):
    source = PatchSource(dask_level(image), np.empty((0, 2)), extent=8, size=8)
    assert list(source.batches()) == []
    assert source.read().shape == (0, 8, 8, 3)


def test_centers_outside_the_level_are_refused(image):
    with pytest.raises(ValueError, match="inside the level of 417 x 333 px"):
        PatchSource(dask_level(image), np.array([[10.0, 400.0]]), extent=8, size=8)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"um_per_px": -1.0}, {"context": ()}, {"context": (1, 0)}])
def test_impossible_patches_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        PatchSpec(**wrong)


def no_thread_is_left():
    deadline = time.monotonic() + 5
    while any(thread.name == "sthisto-read-ahead" for thread in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_reading_ahead_stays_at_most_the_depth_ahead():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    reader = read_ahead(items(), depth=2)
    assert next(reader) == 0
    time.sleep(0.1)
    assert len(made) <= 5
    assert list(reader) == list(range(1, 100))
    assert no_thread_is_left()


def test_leaving_the_loop_ends_the_thread(image):
    source = PatchSource(dask_level(image), np.random.default_rng(7).uniform(0, 300, (500, 2)), extent=8, size=8)
    for _ in source.batches(1):
        break
    assert no_thread_is_left()


def test_an_error_of_the_caller_ends_the_thread():
    def consume():
        for i in read_ahead(iter(range(1000)), depth=1):
            assert i < 3

    with pytest.raises(AssertionError):
        consume()
    assert no_thread_is_left()


def test_an_error_while_reading_reaches_the_caller():
    def items():
        yield 1
        msg = "the disk is gone"
        raise OSError(msg)

    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        seen.extend(read_ahead(items()))
    assert no_thread_is_left()


def test_an_error_in_a_chunk_reaches_the_caller(image):
    def broken(block):
        msg = "checksum"
        raise RuntimeError(msg)

    array = da.from_array(image, chunks=(3, 100, 100)).map_blocks(broken, dtype=np.uint8, meta=image[:0, :0, :0])
    source = PatchSource(Level(array, np.eye(3)), np.array([[50.0, 50.0]]), extent=8, size=8)
    with pytest.raises(RuntimeError, match="checksum"):
        list(source.batches())
    assert no_thread_is_left()


def test_a_level_that_is_needed_twice_is_read_once_where_it_fits(image, monkeypatch):
    reads = []

    def block(part):
        reads.append(part.shape)
        return part

    level = Level(
        da.from_array(image, chunks=(3, 100, 64)).map_blocks(block, meta=np.empty((0, 0, 0), np.uint8)), np.eye(3)
    )
    centers = np.array([[50.0, 60.0], [300.0, 250.0]])
    narrow, wide = (PatchSource(level, centers, extent=extent, size=32) for extent in (32, 96))
    expected = [narrow.read(), wide.read()]
    reads.clear()
    held = read_once([narrow, wide])
    n_reads = len(reads)
    for source, patches in zip(held, expected, strict=True):
        np.testing.assert_array_equal(source.read(), patches)
    assert len(reads) == n_reads == 4 * 7
    assert read_once([narrow])[0].level is level
    monkeypatch.setattr(settings, "image_memory", 1e-6)
    assert all(source.level is level for source in read_once([narrow, wide]))
