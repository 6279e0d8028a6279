"""Slide files of every kind: the right pixels, levels and µm, and nothing read before it is asked for."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import time

import dask
import numpy as np
import pytest
import spatialdata as sd
import zarr
from PIL import Image, ImageCms
from slides import (
    HALF_UM,
    MACRO,
    SCAN,
    shrunk,
    write_aperio,
    write_hamamatsu,
    write_ome,
    write_pyramid,
)
from tifffile import FileHandle, TiffWriter, imwrite
from xarray import DataTree

import sthisto as sth
from sthisto.io._slide import SlideFile
from sthisto.io._slide_openslide import ScannerSlide
from sthisto.io._slide_tiff import TiffSlide


def levels(sdata: sd.SpatialData) -> list:
    (image,) = sdata.images.values()
    nodes = image.values() if isinstance(image, DataTree) else [{"image": image}]
    return [next(iter(node.values())).data for node in nodes]


def pixels(level) -> np.ndarray:
    return np.moveaxis(np.asarray(level), 0, -1).astype(int)


def known(sdata: sd.SpatialData, slot: str) -> float | None:
    return next(iter(sdata.attrs["sthisto"].get(slot, {}).values()), None)


FILES = {
    "pages.tif": (write_pyramid, {}, 0.5, None, (1, 2, 4)),
    "big.tif": (write_pyramid, {"bigtiff": True}, 0.5, None, (1, 2, 4)),
    "jpeg2000.tif": (write_pyramid, {"compression": "jpeg2000"}, 0.5, None, (1, 2, 4)),
    "deflate.tif": (write_pyramid, {"compression": "zlib"}, 0.5, None, (1, 2, 4)),
    "strips.tif": (write_pyramid, {"tile": None, "rowsperstrip": 64}, 0.5, None, (1, 2, 4)),
    "plain.tif": (write_pyramid, {"tile": None, "compression": None}, 0.5, None, (1, 2, 4)),
    "macro_first.tif": (write_pyramid, {"first": MACRO}, 0.5, None, (1, 2, 4)),
    "large_macro_first.tif": (write_pyramid, {"first": np.tile(MACRO, (3, 1, 1))}, 0.5, None, (1, 2, 4)),
    "aperio.svs": (write_aperio, {}, 0.499, 20.0, (1, 4)),
    "scan.ome.tif": (write_ome, {}, 0.25, None, (1, 2, 4)),
    "scan.ndpi": (write_hamamatsu, {}, 0.5, 20.0, (1, 4)),
}


@pytest.mark.parametrize("name", FILES)
def test_slides_have_their_pixels_levels_um_and_objective(tmp_path, name):
    write, options, um, objective, factors = FILES[name]
    sdata = sth.io.read_slide(write(tmp_path / name, **options))
    found = levels(sdata)
    assert [level.shape for level in found] == [(3, 1200 // factor, 1600 // factor) for factor in factors]
    for level, factor in zip(found, factors, strict=True):
        assert np.abs(pixels(level) - shrunk(factor)).mean() < 2.5
        part = pixels(level[:, 100:140, 200:290])
        np.testing.assert_array_equal(part, pixels(level)[100:140, 200:290])
    assert known(sdata, "um_per_unit") == pytest.approx(um)
    assert known(sdata, "objective") == objective


@pytest.mark.parametrize("name", ["aperio.svs", "jpeg2000.tif", "scan.ome.tif"])
def test_slides_are_written_and_read_again(tmp_path, name):
    write, options, um, *_ = FILES[name]
    sdata = sth.io.read_slide(write(tmp_path / name, **options))
    sdata.write(tmp_path / "slide.zarr")
    again = sd.read_zarr(tmp_path / "slide.zarr")
    for before, after in zip(levels(sdata), levels(again), strict=True):
        np.testing.assert_array_equal(pixels(before), pixels(after))
    assert known(again, "um_per_unit") == pytest.approx(um)


def test_a_grid_is_laid_over_a_slide_without_further_arguments(tmp_path):
    sdata = sth.io.read_slide(write_aperio(tmp_path / "aperio.svs"))
    sth.pp.tissue_grid(sdata)
    spots = sdata.shapes["tissue_grid"]
    assert spots["radius"].iloc[0] == pytest.approx(55 / 2 / 0.499)


def test_opening_reads_no_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(TiffSlide, "read", lambda *_: pytest.fail("pixels were read"))
    sdata = sth.io.read_slide(write_pyramid(tmp_path / "slide.tif"))
    assert levels(sdata)[0].shape == (3, 1200, 1600)


def sparse_tiles(side: int):
    """Yield tiles of a slide that is blank but for its first one; those that hold nothing take no place."""
    yield SCAN[:256, :256]
    yield from (None for _ in range((-(-side // 256)) ** 2 - 1))


def test_large_slides_open_small_and_blank_tiles_are_white(tmp_path):
    side = 100_000
    with TiffWriter(tmp_path / "large.tif", bigtiff=True) as writer:
        writer.write(sparse_tiles(side), shape=(side, side, 3), dtype=np.uint8, photometric="rgb", tile=(256, 256),
                     compression="zlib", metadata=None, **HALF_UM)  # fmt: skip
    file = SlideFile.at(tmp_path / "large.tif")
    found = levels(sth.io.read_slide(file.path))
    assert [level.shape[1] for level in found] == [100_000, 25_000, 6_250, 1_562]
    assert sum(len(pickle.dumps(dict(level.dask))) for level in found) < 20e6
    np.testing.assert_array_equal(pixels(found[0][:, :256, :256]), SCAN[:256, :256])
    assert pixels(found[0][:, 50_000:50_100, 70_000:70_100]).min() == 255
    means = SCAN[:256, :256].reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(pixels(found[1][:, :64, :64]), means, atol=0.5)


@pytest.mark.parametrize("stored", [SCAN.astype(np.uint16) * 257, (SCAN / 255).astype(np.float32)])
def test_deeper_colors_become_eight_bits(tmp_path, stored):
    imwrite(tmp_path / "deep.tif", stored, photometric="rgb", tile=(256, 256))
    np.testing.assert_allclose(pixels(levels(sth.io.read_slide(tmp_path / "deep.tif"))[0]), SCAN, atol=1)


def test_openslide_and_tifffile_read_the_same_pixels(tmp_path):
    path = write_aperio(tmp_path / "aperio.svs")
    tiff, scanner = TiffSlide(path), ScannerSlide(path)
    assert (tiff.shapes, tiff.um_per_px, tiff.objective) == (scanner.shapes, scanner.um_per_px, scanner.objective)
    for level in range(2):
        where = (level, slice(100, 220), slice(150, 290))
        assert np.abs(tiff.read(*where).astype(int) - scanner.read(*where)).max() <= 1
    assert scanner.read(0, slice(1150, 1300), slice(0, 20))[50:].min() == 255
    tiff.close()
    scanner.close()


def test_formats_of_scanners_name_openslide_where_it_is_missing(tmp_path, monkeypatch):
    (tmp_path / "slide.mrxs").write_bytes(b"mirax")
    with pytest.raises(ValueError, match="what belongs to it is missing"):
        sth.io.read_slide(tmp_path / "slide.mrxs")
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImportError, match=r"sthisto\[slides\]"):
        sth.io.read_slide(tmp_path / "slide.mrxs")
    assert levels(sth.io.read_slide(write_aperio(tmp_path / "aperio.svs")))[0].shape == (3, 1200, 1600)


def test_color_profiles_are_applied_when_asked(tmp_path, caplog):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = write_pyramid(tmp_path / "slide.tif", compression="zlib", iccprofile=profile)
    stored = pixels(levels(sth.io.read_slide(path))[0])
    np.testing.assert_array_equal(stored, SCAN)
    converted = pixels(levels(sth.io.read_slide(path, apply_icc=True))[0])
    np.testing.assert_allclose(converted, SCAN, atol=2)
    bare = write_pyramid(tmp_path / "bare.tif")
    with caplog.at_level(logging.WARNING, "sthisto"):
        sth.io.read_slide(bare, apply_icc=True)
    assert "no color profile" in caplog.text


def test_color_profiles_of_pictures_are_applied_when_asked(tmp_path, caplog):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"tmp.").replace(b"bXYZ", b"rXYZ").replace(b"tmp.", b"bXYZ")
    Image.fromarray(SCAN).save(tmp_path / "scan.png", icc_profile=swapped)
    stored, converted = (
        pixels(levels(sth.io.read_slide(tmp_path / "scan.png", apply_icc=apply))[0]) for apply in (False, True)
    )
    np.testing.assert_array_equal(stored, SCAN)
    np.testing.assert_allclose(converted, SCAN[..., ::-1], atol=3)
    Image.fromarray(SCAN).save(tmp_path / "bad.png", icc_profile=b"no profile")
    with pytest.raises(ValueError, match=r"color profile of .* can't be applied"):
        sth.io.read_slide(tmp_path / "bad.png", apply_icc=True)
    zarr.save(tmp_path / "scan.zarr", SCAN)
    sth.io.read_slide(tmp_path / "scan.zarr", apply_icc=True)
    assert "no color profile" in caplog.text


def test_pictures_and_plain_zarr_are_slides_too(tmp_path, caplog):
    Image.fromarray(SCAN).save(tmp_path / "scan.png", dpi=(50_800, 50_800))
    Image.fromarray(SCAN).save(tmp_path / "scan.jpg", quality=95)
    zarr.save(tmp_path / "scan.zarr", SCAN)
    for name in ("scan.png", "scan.jpg", "scan.zarr"):
        with caplog.at_level(logging.WARNING, "sthisto"):
            sdata = sth.io.read_slide(tmp_path / name)
        assert np.abs(pixels(levels(sdata)[0]) - SCAN).max() <= (8 if name.endswith("jpg") else 0)
        assert list(sdata.images) == ["scan_image"]
    assert "does not state its µm per px" in caplog.text
    assert known(sth.io.read_slide(tmp_path / "scan.png"), "um_per_unit") == pytest.approx(0.5, rel=1e-3)


def test_ome_zarr_has_its_levels_and_um(tmp_path):
    group = zarr.open_group(tmp_path / "scan.ome.zarr", mode="w")
    for i, factor in enumerate((1, 4)):
        group.create_array(str(i), data=np.moveaxis(shrunk(factor), -1, 0), chunks=(1, 256, 256))
    axes = [{"name": "c", "type": "channel"}] + [
        {"name": name, "type": "space", "unit": "micrometer"} for name in ("y", "x")
    ]
    datasets = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": [1, 0.25 * f, 0.25 * f]}]}
        for i, f in enumerate((1, 4))
    ]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    sdata = sth.io.read_slide(tmp_path / "scan.ome.zarr")
    assert list(sdata.images) == ["scan_image"]
    assert known(sdata, "um_per_unit") == 0.25
    for level, factor in zip(levels(sdata), (1, 4), strict=True):
        np.testing.assert_array_equal(pixels(level), shrunk(factor))


def write_deep_ome_zarr(path, deep, factors=(1, 4)):
    """Write levels (height, width, 3) of more than eight bits."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for i, factor in enumerate(factors):
        group.create_array(str(i), data=np.moveaxis(deep(factor), -1, 0), chunks=(1, 256, 256))
    axes = [{"name": "c", "type": "channel"}, *({"name": name, "type": "space"} for name in "yx")]
    datasets = [{"path": str(i)} for i in range(len(factors))]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    return path


def test_sixteen_bits_in_zarr_are_known_by_the_coarsest_level_alone(tmp_path):
    path = write_deep_ome_zarr(tmp_path / "deep.zarr", lambda factor: shrunk(factor).astype(np.uint16) * 257)
    intact = (path / "0" / "0.0.0").read_bytes()
    for chunk in (path / "0").glob("[0-9]*"):
        chunk.write_bytes(b"damaged")
    fine, coarse = levels(sth.io.read_slide(path))
    np.testing.assert_array_equal(pixels(coarse), shrunk(4))
    for channel in range(3):
        (path / "0" / f"{channel}.0.0").write_bytes(intact)
    np.testing.assert_array_equal(pixels(fine[:, :256, :256])[..., 0], SCAN[:256, :256, 0])


def test_all_levels_of_a_deep_zarr_have_one_white(tmp_path):
    def deep(factor):
        values = np.full((1200 // factor, 1600 // factor, 3), 1000, dtype=np.uint16)
        values[0, 0] = 1020 if factor > 1 else 1030  # between what ten and twelve bits hold
        return values

    found = levels(sth.io.read_slide(write_deep_ome_zarr(tmp_path / "deep.zarr", deep)))
    assert [pixels(level)[9, 9].tolist() for level in found] == [[249] * 3] * 2


def write_channels(path, channels, names, **um):
    """Write levels of an OME-TIFF whose channels are planes of gray with names."""
    with TiffWriter(path, ome=True) as writer:
        metadata = {"axes": "CYX", "Channel": {"Name": names}, **um}
        writer.write(channels, subifds=1, photometric="minisblack", tile=(256, 256), metadata=metadata)
        writer.write(channels[:, ::2, ::2].copy(), subfiletype=1, photometric="minisblack", tile=(256, 256))
    return path


def write_ome_zarr(path, channels, names, *, steps=(0.25, 0.25), **layout):
    """Write an OME-Zarr of format 0.4 with a level, its five axes as bioformats2raw writes them."""
    group = zarr.open_group(path, mode="w", zarr_format=2)
    if layout:
        group.attrs.update(layout)
        group = group.create_group("0")
    group.create_array("0", data=channels[None, :, None], chunks=(1, 1, 1, 256, 256))
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    axes += [{"name": name, "type": "space", "unit": "micrometer"} for name in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1, *steps]}]}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
    group.attrs["omero"] = {"channels": [{"label": name} for name in names]}
    return path


@pytest.mark.parametrize("write", [write_channels, write_ome_zarr])
def test_channels_are_taken_by_their_names(tmp_path, write):
    blue_first = np.moveaxis(SCAN, -1, 0)[::-1].copy()
    for i, level in enumerate(levels(sth.io.read_slide(write(tmp_path / "a", blue_first, ["Blue", "Green", "Red"])))):
        np.testing.assert_array_equal(pixels(level), SCAN[:: i + 1, :: i + 1])
    with pytest.raises(ValueError, match="'DAPI', 'CD3', 'CD8', as a fluorescence image has"):
        sth.io.read_slide(write(tmp_path / "b", blue_first, ["DAPI", "CD3", "CD8"]))


@pytest.mark.parametrize("n_channels", [3, 4])
def test_fluorescence_of_akoya_is_no_slide(tmp_path, n_channels):
    about = "<PerkinElmer-QPI-ImageDescription><ImageType>FullResolution</ImageType><Name>{}</Name></PerkinElmer-QPI-ImageDescription>"  # noqa: E501
    with TiffWriter(tmp_path / "scan.qptiff", bigtiff=True) as writer:
        for name in ("DAPI", "Opal 520", "Opal 690", "AF")[:n_channels]:
            writer.write(SCAN[..., 0], photometric="minisblack", tile=(256, 256), software="PerkinElmer-QPI",
                         description=about.format(name), metadata=None)  # fmt: skip
    with pytest.raises(ValueError, match=r"'DAPI', 'Opal 520'.* as a fluorescence image has"):
        sth.io.read_slide(tmp_path / "scan.qptiff")


@pytest.mark.parametrize("axes", ["ZYX", "TYX"])
def test_three_planes_of_depth_or_time_are_no_colors(tmp_path, axes):
    imwrite(tmp_path / "stack.tif", np.moveaxis(SCAN, -1, 0).copy(), imagej=True, metadata={"axes": axes})
    with pytest.raises(ValueError, match="no H&E image in RGB"):
        sth.io.read_slide(tmp_path / "stack.tif")


def test_pixels_that_are_not_square_have_no_um_per_px(tmp_path):
    sides = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    channels = np.moveaxis(SCAN, -1, 0).copy()
    tiff = write_channels(tmp_path / "a.ome.tif", channels, ["R", "G", "B"], **sides)
    stored = write_ome_zarr(tmp_path / "a.zarr", channels, ["R", "G", "B"], steps=(0.5, 0.25))
    for path in (tiff, stored):
        assert known(sth.io.read_slide(path), "um_per_unit") is None
    square = write_ome_zarr(tmp_path / "b.zarr", channels, ["R", "G", "B"], **{"bioformats2raw.layout": 3})
    assert known(sth.io.read_slide(square), "um_per_unit") == 0.25


def test_um_are_read_in_any_notation_and_of_the_image_that_is_read(tmp_path, caplog):
    path = write_pyramid(tmp_path / "a.svs", description="Aperio Image Library v11\r\nX|AppMag = 20|MPP = 4.99e-1")
    assert known(sth.io.read_slide(path), "um_per_unit") == pytest.approx(0.499)
    with TiffWriter(tmp_path / "two.ome.tif", ome=True) as writer:
        for um in (0.25, 0.5):
            writer.write(SCAN, photometric="rgb", metadata={"PhysicalSizeX": um, "PhysicalSizeY": um})
    assert known(sth.io.read_slide(tmp_path / "two.ome.tif"), "um_per_unit") == 0.25
    assert "2 images of the same size: the first is read" in caplog.text


def test_turned_slides_are_read_as_stored_with_a_warning(tmp_path, caplog):
    path = write_pyramid(tmp_path / "a.tif", compression="zlib", extratags=[(274, "H", 1, 6, True)])
    np.testing.assert_array_equal(pixels(levels(sth.io.read_slide(path))[0]), SCAN)
    assert "shown turned or mirrored by its tag Orientation" in caplog.text


def test_levels_are_read_by_many_threads_at_once(tmp_path):
    found = levels(sth.io.read_slide(write_pyramid(tmp_path / "slide.tif", compression="zlib", tile=(64, 64))))
    small = [level.rechunk((3, 100, 100)) for level in found] * 5
    for level, again in zip(dask.compute(*small, scheduler="threads", num_workers=8), (1, 2, 4) * 5, strict=True):
        np.testing.assert_array_equal(pixels(level), shrunk(again))


def test_a_level_that_is_opened_does_not_move_the_place_in_the_file_of_others(tmp_path, monkeypatch):
    seek = FileHandle.seek

    def slow_seek(*arguments):
        place = seek(*arguments)
        time.sleep(1e-3)
        return place

    path = write_ome(tmp_path / "scan.ome.tif")
    monkeypatch.setattr(FileHandle, "seek", slow_seek)
    for again in range(3):
        os.utime(path, ns=(again, again))  # else the file is still open
        found = [level.rechunk((3, 256, 256)) for level in levels(sth.io.read_slide(path))]
        read = dask.compute(*found, *found, scheduler="threads", num_workers=8)
        for level, factor in zip(read, (1, 2, 4, 1, 2, 4), strict=True):
            assert np.abs(pixels(level) - shrunk(factor)).mean() < 2.5


def test_stated_um_and_name_are_used(tmp_path):
    sdata = sth.io.read_slide(write_aperio(tmp_path / "a.svs"), um_per_px=0.3, name="P1/A")
    assert sdata.attrs["sthisto"]["um_per_unit"] == {"P1_A": 0.3}
    with pytest.raises(ValueError, match="um_per_px"):
        sth.io.read_slide(tmp_path / "a.svs", um_per_px=0)


def test_damaged_and_foreign_files_are_refused(tmp_path):
    whole = write_pyramid(tmp_path / "whole.tif").read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / "cut.tif").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r"incomplete|can't be read|no H&E image"):
            sth.io.read_slide(tmp_path / "cut.tif")
    (tmp_path / "text.svs").write_text("no slide")
    with pytest.raises(ValueError, match="can't be read"):
        sth.io.read_slide(tmp_path / "text.svs")
    imwrite(tmp_path / "dapi.tif", SCAN[..., 0])
    with pytest.raises(ValueError, match="no H&E image in RGB"):
        sth.io.read_slide(tmp_path / "dapi.tif")
    with pytest.raises(FileNotFoundError):
        sth.io.read_slide(tmp_path / "missing.svs")
    with pytest.raises(ValueError, match="is a folder"):
        sth.io.read_slide(tmp_path)


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = write_pyramid(tmp_path / "slide.tif", compression="zlib")
    assert pixels(levels(sth.io.read_slide(path))[0]).max() == SCAN.max()
    imwrite(path, np.full((600, 600, 3), 7, dtype=np.uint8), photometric="rgb")
    assert pixels(levels(sth.io.read_slide(path))[0]).max() == 7
