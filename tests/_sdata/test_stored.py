"""Stores that were copied in part, and chunks that are damaged."""

import logging

import dask.array as da
import numpy as np
import pytest
import spatialdata as sd
from builders import Region, grid, make_sdata
from tissue import PATCH, Pool, make_tissue

import sthisto as sth


@pytest.fixture
def store(tmp_path):
    """A stored SpatialData whose image has many chunks, and the image's folder."""
    rng = np.random.default_rng(0)
    image = rng.integers(1, 255, (3, 240, 320), dtype=np.uint8)
    make_sdata(Region(image=image, chunks=(3, 40, 40))).write(tmp_path / "sections.zarr")
    return tmp_path / "sections.zarr"


def chunks(store):
    """The files of the chunks by their row and column."""
    found = {}
    for path in (store / "images").rglob("*"):
        numbers = path.as_posix().split("/c/")[-1].split("/")
        if path.is_file() and len(numbers) == 3 and all(number.isdigit() for number in numbers):
            found[tuple(map(int, numbers[1:]))] = path
    return found


def fit(store, **arguments):
    sdata = sd.read_zarr(store)
    return sdata, sth.tl.fit(sdata, **{"method": "color", "patch_size": 16, "n_top_genes": 5} | arguments)


def test_a_whole_store_is_read_without_a_word(store, caplog):
    fit(store)
    assert "missing" not in caplog.text
    assert "one color" not in caplog.text


@pytest.mark.parametrize("arguments", [{}, {"method": "mean"}, {"method": "knn", "image_encoder": Pool(), "k": 3}])
def test_missing_chunks_under_spots_are_an_error_that_names_the_image(store, arguments):
    files = chunks(store)
    assert len(files) == 48
    for place in list(files)[::4]:
        files[place].unlink()
    with pytest.raises(FileNotFoundError, match=r"Image 'image' is not complete: \d+ of 35 spots of region 'spots'"):
        fit(store, **arguments)


def test_prediction_on_a_part_of_an_image_writes_nothing(store):
    _, model = fit(store)
    next(iter(chunks(store).values())).unlink()
    sdata = sd.read_zarr(store)
    before = set(sdata["counts"].layers)
    with pytest.raises(FileNotFoundError, match="copy it again"):
        sth.tl.predict(sdata, model)
    assert set(sdata["counts"].layers) == before


def test_black_beside_the_tissue_is_only_warned_of(tmp_path, caplog):
    rng = np.random.default_rng(0)
    image = rng.integers(1, 255, (3, 240, 320), dtype=np.uint8)
    image[:, :, :40] = 0  # zarr stores no chunk of it
    centers = grid(320, 240, 40)
    centers = centers[centers[:, 0] > 45]
    make_sdata(Region(image=image, centers=centers, chunks=(3, 40, 40))).write(tmp_path / "sections.zarr")
    fit(tmp_path / "sections.zarr")
    assert "missing" not in caplog.text
    fit(tmp_path / "sections.zarr", patch_size=60)
    assert "reach into chunks that image 'image' lacks" in caplog.text


def test_a_damaged_chunk_names_the_image(store):
    file = chunks(store)[2, 2]
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises((OSError, RuntimeError, ValueError), match="Image 'image' cannot be read, a chunk is damaged"):
        fit(store)


def test_patches_of_one_color_are_counted(caplog):
    sdata = make_tissue()
    image = sdata.images["A_image"]
    pixels = np.asarray(image.data).copy()
    pixels[:, :30, :30] = 0
    sdata.images["A_image"] = image.copy(data=da.from_array(pixels))
    with caplog.at_level(logging.WARNING):
        sth.tl.fit(sdata, method="color", patch_size=PATCH, n_top_genes=5)
    assert caplog.text.count("patches of section 'A' are of one color") == 1
    assert "section 'B'" not in caplog.text


def test_pixels_in_memory_need_no_store(store):
    sdata = sd.read_zarr(store)
    image = sdata.images["image"]
    sdata.images["image"] = image.copy(data=da.from_array(np.asarray(image.data)))
    for file in chunks(store).values():
        file.unlink()
    sth.tl.fit(sdata, method="color", patch_size=16, n_top_genes=5)
