"""Images of every kind that people have, brought to the same pixels."""

from __future__ import annotations

import logging

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from PIL import Image
from spatialdata.models import Image2DModel
from tifffile import TiffWriter, imwrite

import sthisto as sth
from sthisto.io._arrays import white_value
from sthisto.io._image import read_picture

RNG = np.random.default_rng(5)
ROWS, COLUMNS = np.mgrid[:90, :120]
HE = np.stack(
    [225 - ROWS, 150 + 60 * np.sin(COLUMNS / 9), 200 - COLUMNS / 2], axis=-1
).round().astype(np.uint8)  # fmt: skip
OPAQUE = np.full(HE.shape[:2], 255, dtype=np.uint8)
GLASS = np.zeros_like(OPAQUE)
GLASS[30:] = 255
ON_WHITE = np.where(GLASS[..., None] > 0, HE, 255)
HOLES = np.where(GLASS[..., None] > 0, HE / np.float32(255), np.float32("nan"))


def pixels(source) -> np.ndarray:
    return np.asarray(read_picture(source).pixels)


@pytest.mark.parametrize(
    "source",
    [
        HE,
        HE.tolist(),
        np.asfortranarray(HE),
        HE[None],
        HE[..., None],
        np.moveaxis(HE, -1, 0),
        np.moveaxis(HE, -1, 0)[None, None],
        HE.astype(np.int64),
        HE.astype(np.uint16) * 257,
        HE.astype(np.float64),
        HE / 255,
        (HE / 255).astype(np.float16),
        np.dstack([HE, OPAQUE]),
        np.dstack([HE, OPAQUE]).astype(np.float32) / 255,
        da.from_array(HE, chunks=(32, 32, 1)),
        da.from_array(HE.astype(np.uint16) * 257, chunks=(32, 32, 2)),
        da.from_array(np.dstack([HE, OPAQUE]), chunks=(32, 32, 1)),
        zarr.array(HE),
        np.ma.masked_array(HE),
        xr.DataArray(HE, dims=("y", "x", "c")),
        xr.DataArray(HE, dims=("Y", "X", "channel")),
        xr.DataArray(HE[None], dims=("z", "y", "x", "c")),
        xr.DataArray(np.moveaxis(HE[..., ::-1], -1, 0), dims=("c", "y", "x"), coords={"c": ["blue", "green", "red"]}),
        Image2DModel.parse(HE, dims=("y", "x", "c"), scale_factors=[2]),
        Image.fromarray(HE),
        Image.fromarray(HE).convert("RGBA"),
    ],
)
def test_arrays_of_every_kind_are_the_same_pixels(source):
    np.testing.assert_array_equal(pixels(source), HE)


@pytest.mark.parametrize("order", [("scale0", "scale1"), ("scale1", "scale0")])
def test_the_finest_level_is_read_in_whatever_order_they_stand(order):
    tree = Image2DModel.parse(HE, dims=("y", "x", "c"), scale_factors=[2])
    levels = {name: tree[name].to_dataset() for name in order}
    np.testing.assert_array_equal(pixels(xr.DataTree.from_dict(levels)), HE)


def test_lazy_arrays_stay_lazy():
    def refuse(block):
        raise AssertionError

    image = da.map_blocks(refuse, da.from_array(HE, chunks=(45, 60, 3)), dtype=np.uint8, meta=np.empty((0, 0, 0), "u1"))
    assert read_picture(image).pixels.shape == HE.shape


@pytest.mark.parametrize("source", [None, 3, b"he.png", [[1, 2], [3]], HE.astype(str), HE.astype(complex), {1, 2}])
def test_what_is_no_image_is_refused_with_what_is_taken(adata, source):
    with pytest.raises(TypeError, match="it takes the name of an image in uns, a path, or the pixels"):
        sth.io.from_anndata(adata, image=source)


@pytest.mark.parametrize(
    "source", [HE[..., 0], HE[..., :1], np.stack([HE, HE]), HE[:0], HE > 99, HE - 300.0, HE * 99.0]
)
def test_pixels_that_are_no_rgb_are_refused(source):
    with pytest.raises(ValueError, match=r"RGB|between 0 and 1"):
        read_picture(source)


@pytest.mark.parametrize(
    "source",
    [HOLES, da.from_array(HOLES, chunks=(32, 32, 1)), np.ma.masked_array(HE, HOLES != HOLES)],
)
def test_holes_are_white_with_a_warning(source, caplog):
    with caplog.at_level(logging.WARNING, "sthisto"):
        np.testing.assert_array_equal(pixels(source), ON_WHITE)
    assert "NaN: they are white" in caplog.text


def test_twelve_bits_are_scaled_to_eight():
    deep = np.rint(HE / 255 * 4095).astype(np.uint16)
    deep[0, 0] = 4095
    np.testing.assert_array_equal(pixels(deep)[1:], HE[1:])


def test_of_large_lazy_images_some_places_tell_the_range():
    side, chunk = 16_384, 512
    read = []

    def block(block_info=None):
        rows, columns, _ = block_info[None]["array-location"]
        read.append((rows[0], columns[0]))
        bright = 4000 if columns[0] > side // 2 else 900
        return np.full((chunk, chunk, 3), bright, dtype=np.uint16)

    tiles = (chunk,) * (side // chunk)
    lazy = da.map_blocks(block, chunks=(tiles, tiles, (3,)), dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16))
    white = white_value(lazy, "It")
    assert white == 4095
    assert len(set(read)) <= 256 < (side // chunk) ** 2


# Files, by their content


@pytest.mark.parametrize("name", ["he.png", "he.bmp", "he.jp2", "he.webp", "he.tif", "he.TIFF", "scan", "he.svs"])
def test_files_are_recognized_by_content(tmp_path, name):
    kind = {"he.tif": "TIFF", "he.TIFF": "TIFF", "scan": "TIFF", "he.svs": "TIFF"}.get(name)
    options = {"lossless": True} if name.endswith("webp") else {}
    Image.fromarray(HE).save(tmp_path / name, kind, **options)
    np.testing.assert_array_equal(pixels(tmp_path / name), HE)
    np.testing.assert_array_equal(pixels(str(tmp_path / name)), HE)


def test_pixels_that_viewers_turn_are_read_as_stored_with_a_warning(tmp_path, caplog):
    turned = Image.Exif()
    turned[0x112] = 6
    Image.fromarray(HE).save(tmp_path / "he.png", exif=turned)
    with caplog.at_level(logging.WARNING, "sthisto"):
        np.testing.assert_array_equal(pixels(tmp_path / "he.png"), HE)
    assert "EXIF" in caplog.text


def test_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.fromarray(HE).save(tmp_path / "he.png")
    np.testing.assert_array_equal(pixels("~/he.png"), HE)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "P"])
def test_colors_of_pil_are_taken_by_its_mode(mode):
    stored = Image.fromarray(HE).convert(mode)
    np.testing.assert_array_equal(pixels(stored), np.asarray(stored.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "LA", "1", "I", "F"])
def test_grayscale_is_refused(tmp_path, mode):
    with pytest.raises(ValueError, match="is a grayscale image"):
        read_picture(Image.fromarray(HE).convert("L").convert(mode))


def test_transparency_lies_over_white(tmp_path):
    black_glass = np.dstack([np.where(GLASS[..., None] > 0, HE, 0), GLASS])
    Image.fromarray(black_glass).save(tmp_path / "he.png")
    imwrite(tmp_path / "he.tif", black_glass, photometric="rgb", extrasamples=["unassalpha"])
    imwrite(tmp_path / "premultiplied.tif", black_glass, photometric="rgb", extrasamples=["assocalpha"])
    for source in (black_glass, *(tmp_path / name for name in ("he.png", "he.tif", "premultiplied.tif"))):
        np.testing.assert_array_equal(pixels(source), ON_WHITE)


def test_half_transparent_colors_are_mixed_with_white(tmp_path):
    half = np.full_like(OPAQUE, 102)
    mixed = np.rint(HE * 0.4 + 255 * 0.6)
    np.testing.assert_allclose(pixels(np.dstack([HE, half])), mixed, atol=1)
    imwrite(tmp_path / "he.tif", np.dstack([np.rint(HE * 0.4), half]).astype(np.uint8), photometric="rgb",
            extrasamples=["assocalpha"])  # fmt: skip
    np.testing.assert_allclose(pixels(tmp_path / "he.tif"), mixed, atol=1)


@pytest.mark.parametrize(
    ("options", "stored"),
    [
        ({"photometric": "separated"}, np.asarray(Image.fromarray(HE).convert("CMYK"))),
        ({"photometric": "separated"}, np.asarray(Image.fromarray(HE).convert("CMYK")).astype(np.uint16) * 257),
        ({"photometric": "rgb", "planarconfig": "separate"}, np.moveaxis(HE, -1, 0)),
        ({"photometric": "rgb"}, HE.astype(np.uint16) * 257),
        ({"photometric": "rgb"}, (HE / 255).astype(np.float32)),
        ({"photometric": "rgb"}, HE[None]),
        ({"photometric": "rgb", "byteorder": ">", "bigtiff": True}, HE),
        ({"photometric": "rgb", "tile": (32, 32), "compression": "zlib"}, HE),
        ({"photometric": "rgb", "extrasamples": ["unspecified"]}, np.dstack([HE, GLASS])),
        ({"photometric": "minisblack", "metadata": {"axes": "CYX"}, "ome": True}, np.moveaxis(HE, -1, 0)),
    ],
)
def test_tiffs_are_read_by_their_color_model(tmp_path, options, stored):
    imwrite(tmp_path / "he.tif", stored, **options)
    np.testing.assert_allclose(pixels(tmp_path / "he.tif"), HE, atol=1)


def test_palettes_become_colors(tmp_path):
    few = Image.fromarray(HE).quantize(200)
    for name in ("he.png", "he.tif", "he.gif"):
        few.save(tmp_path / name)
        np.testing.assert_array_equal(pixels(tmp_path / name), np.asarray(few.convert("RGB")))


def ycbcr(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("YCbCr"))


def test_ycbcr_is_converted_unless_it_was_already(tmp_path):
    slide = np.full((200, 200, 3), 243, dtype=np.uint8)
    slide[50:150, 40:160] = HE[:90, :120][np.arange(100) % 90]
    for name, stored in (("stored", ycbcr(slide)), ("decoded", slide)):
        imwrite(tmp_path / name, stored, photometric="ycbcr", compression="zlib")
        np.testing.assert_allclose(pixels(tmp_path / name), slide, atol=3)


@pytest.mark.parametrize("ome", [False, True])
def test_the_largest_image_in_color_is_read_wherever_it_stands(tmp_path, ome):
    path = tmp_path / ("slide.ome.tif" if ome else "slide.tif")
    with TiffWriter(path, ome=ome) as writer:
        options = {} if ome else {"metadata": None}
        writer.write(np.ascontiguousarray(HE[::4, ::4]), photometric="rgb", **options)
        writer.write(HE, photometric="rgb", **options)
        writer.write(np.zeros((300, 300), dtype=np.uint8), photometric="minisblack", **options)
    np.testing.assert_array_equal(pixels(path), HE)


def test_fluorescence_is_refused_by_the_names_of_its_channels(tmp_path):
    names = {"axes": "CYX", "Channel": {"Name": ["DAPI", "CD45", "PanCK"]}}
    imwrite(tmp_path / "if.ome.tif", np.moveaxis(HE, -1, 0), photometric="minisblack", metadata=names)
    with pytest.raises(ValueError, match="'DAPI', 'CD45', 'PanCK', as a fluorescence image has"):
        read_picture(tmp_path / "if.ome.tif")


def test_a_file_without_an_image_in_color_is_refused(tmp_path):
    imwrite(tmp_path / "gray.tif", HE[..., 0], photometric="minisblack")
    imwrite(tmp_path / "stack.tif", np.stack([HE] * 3), photometric="rgb")
    for name, why in (("gray.tif", "holds no H&E image in RGB"), ("stack.tif", "expected one plane")):
        with pytest.raises(ValueError, match=why):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"hello", b"II*\0", b"\x89PNG\r\n\x1a\n123"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "he.tif").write_bytes(content)
    with pytest.raises(ValueError, match=r"he\.tif (can't be read|holds no)"):
        read_picture(tmp_path / "he.tif")


def test_a_folder_and_a_missing_file_are_named(adata, tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder"):
        sth.io.from_anndata(adata, image=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.tif, and no image of that name .* has: 'hires', 'lowres'"):
        sth.io.from_anndata(adata, image="nothing.tif")


# µm per px


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("he.ome.tif", {"metadata": {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}}),
        ("he.ome.tif", {"metadata": {"axes": "YXS", "PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm"}}),
        ("he.svs", {"description": "Aperio Image Library v11.2\r\n120x90 |AppMag = 20|MPP = 0.5000|Left = 1"}),
        ("he.tif", {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}),
        ("he.tif", {"resolution": (50_800, 50_800), "resolutionunit": "INCH"}),
        ("he.tif", {"resolution": (2, 2), "imagej": True, "metadata": {"unit": "um"}}),
    ],
)
def test_um_per_px_are_read_from_tiffs(tmp_path, name, options):
    imwrite(tmp_path / name, HE, **({} if options.get("imagej") else {"photometric": "rgb"}), **options)
    assert read_picture(tmp_path / name).um_per_px == pytest.approx(0.5)


@pytest.mark.parametrize("resolution", [(72, 72), (300, 300), (50_800, 40_000)])
def test_resolutions_of_printers_and_of_oblong_pixels_say_nothing(tmp_path, resolution):
    imwrite(tmp_path / "he.tif", HE, photometric="rgb", resolution=resolution, resolutionunit="INCH")
    assert read_picture(tmp_path / "he.tif").um_per_px is None


def um_of(sdata) -> float | None:
    return sdata.attrs["sthisto"]["um_per_unit"].get("liver")


def test_um_per_px_come_from_the_array_then_space_ranger_then_the_file(adata, visium, tmp_path, caplog):
    path = tmp_path / "he.png"
    Image.fromarray(visium.image).save(path, dpi=(50_800, 50_800))
    factors = adata.uns["spatial"]["liver"]["scalefactors"]
    with caplog.at_level(logging.WARNING, "sthisto"):
        assert um_of(sth.io.from_anndata(adata, image=path)) == pytest.approx(2.5)
    assert "are 2.5, 0.5 by its array" in caplog.text
    del adata.obs["array_row"]
    assert um_of(sth.io.from_anndata(adata, image=path)) == pytest.approx(0.5, rel=1e-3)
    factors |= {"bin_size_um": 8.0, "spot_diameter_fullres": 20.0}
    assert um_of(sth.io.from_anndata(adata, image=path)) == pytest.approx(0.4)
    factors["microns_per_pixel"] = "0.42"
    assert um_of(sth.io.from_anndata(adata, image=path)) == pytest.approx(0.42)
