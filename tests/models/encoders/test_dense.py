from __future__ import annotations

import logging

import dask.array as da
import numpy as np
import pytest
import timm
import torch
from builders import skip_without_maps
from scipy.ndimage import gaussian_filter
from tissue import make_tissue
from torch import nn

import sthisto as sth
from sthisto import settings
from sthisto._images.patches import PatchSource, PatchSpec
from sthisto._images.pyramid import Level
from sthisto.models import SectionInput, load, load_encoder
from sthisto.models.encoders import features
from sthisto.models.encoders.dense import Tiling, window_means
from sthisto.models.encoders.features import EncoderMaps, dense_gain, extract
from sthisto.models.encoders.reach import known_reach, reach
from sthisto.models.methods.stnet import STNet

WIDTH, HEIGHT = 500, 400


def level(width: int = WIDTH, height: int = HEIGHT, *, sigmas=(1, 3, 8), seed: int = 0) -> Level:
    rng = np.random.default_rng(seed)
    planes = np.stack([gaussian_filter(rng.normal(size=(height, width)), sigma) for sigma in sigmas])
    planes *= 40 / planes.std(axis=(1, 2), keepdims=True)
    return Level((planes + 140).clip(0, 255).astype(np.uint8), np.eye(3))


def points(n: int = 60, seed: int = 1) -> np.ndarray:
    """Points inside the image, its corners and border among them."""
    inside = np.random.default_rng(seed).uniform(0, 1, (n - 3, 2)) * (WIDTH, HEIGHT)
    return np.vstack([[[0, 0], [WIDTH, HEIGHT], [WIDTH, 10.3]], inside])


def encoder_at(name: str = "efficientnet_lite0", layer=2):
    weights = None if name == "efficientnet_lite0" else "random"
    return load_encoder(name, weights=weights, layer=layer, input_size="patch")


class Colors:
    """Maps that are the pixels themselves."""

    width, margin, stride, n_channels = 64, 0, 1, 3

    def __call__(self, tile):
        return [np.moveaxis(tile, -1, 0).astype(np.float32)]


@pytest.mark.parametrize("tile", [100, 10_000])
def test_means_of_the_pixels_themselves_are_those_of_the_patches(tile):
    source = PatchSource(level(), points(), extent=64, size=64)
    expected = source.read().mean(axis=(1, 2))  # reflected at the border of the image, as patches are
    np.testing.assert_allclose(window_means(Tiling.plan(source, Colors(), tile), Colors()), expected, rtol=1e-5)


def test_means_of_resampled_pixels_are_those_of_the_patches_at_fractions_of_a_pixel():
    source = PatchSource(level(sigmas=(6, 6, 9)), points(), extent=100.7, size=64)
    found = window_means(Tiling.plan(source, Colors(), 200), Colors())
    assert np.abs(found - source.read().mean(axis=(1, 2))).max() < 0.5


@pytest.mark.parametrize(
    ("name", "layer"),
    [("efficientnet_lite0", 2), ("efficientnet_lite0", (1, 3)), ("densenet121", 1), ("test_resnet", 2)],
)
@pytest.mark.parametrize("extent", [96, 120.5, 192])
def test_borders_of_tiles_do_not_show(name, layer, extent):
    skip_without_maps(name)
    encoder = encoder_at(name, layer)
    source = PatchSource(level(), points(), extent=extent, size=96)
    maps = EncoderMaps(encoder, 96)
    whole = Tiling.plan(source, maps, 100_000)
    assert len(whole.origins) == 1
    expected = window_means(whole, maps)
    for tile in (256, 410):
        tiling = Tiling.plan(source, maps, tile)
        if tile == 256 and extent < 192:
            assert len(tiling.origins) > 1
        difference = np.abs(window_means(tiling, maps) - expected).max()
        tolerance = 1e-3 if extent == 120.5 else 1e-5  # resampled pixels are rounded
        assert difference < tolerance * np.abs(expected).max()


def test_a_window_that_is_the_whole_image_has_the_mean_of_its_map():
    encoder = encoder_at()
    image = level(256, 256)
    source = PatchSource(image, np.array([[128.0, 128.0]]), extent=256, size=256)
    tiling = Tiling.plan(source, EncoderMaps(encoder, 256))
    margin = tiling.margin
    padded = np.pad(image.read(0, 256, 0, 256), [(margin, margin), (margin, margin), (0, 0)], mode="reflect")
    with torch.inference_mode():
        (found,) = encoder.eval().maps(torch.from_numpy(padded)[None])
    cells = margin // 8
    expected = found[0, :, cells:-cells, cells:-cells].mean((1, 2)).numpy()
    np.testing.assert_allclose(window_means(tiling, EncoderMaps(encoder, 256))[0], expected, rtol=1e-4, atol=1e-5)


def test_dense_features_go_along_with_those_of_cut_patches():
    pixels = level(sigmas=(2, 4, 8)).array.astype(float)
    pixels *= np.linspace(0.4, 1, WIDTH)  # so that windows differ, as tissue does
    source = PatchSource(Level(pixels.astype(np.uint8), np.eye(3)), points(), extent=96, size=96)
    encoder, positions = encoder_at(), points()
    cut = extract(SectionInput("cut", [source], positions), encoder).values
    dense = extract(SectionInput("dense", [source], positions, dense=True), encoder).values
    correlation = [np.corrcoef(cut[:, i], dense[:, i])[0, 1] for i in range(cut.shape[1])]
    assert np.median(correlation) > 0.9
    assert not np.allclose(cut, dense)  # zeros around a cut patch reach into its maps


def test_several_widths_and_layers_stand_in_the_order_of_patches():
    sources = [PatchSource(level(), points(), extent=96 * width, size=96) for width in (1, 2)]
    together = extract(SectionInput("A", sources, points(), dense=True), encoder_at(layer=(1, 2))).values
    assert together.shape == (len(points()), 2 * (24 + 40))
    alone = extract(SectionInput("A", sources[1:], points(), dense=True), encoder_at(layer=2)).values
    np.testing.assert_allclose(together[:, -40:], alone, rtol=1e-5, atol=1e-5)


def test_reach_is_what_a_changed_pixel_tells():
    encoder = encoder_at(layer=1)
    found = known_reach(encoder)
    assert found.stride == 4
    image = torch.full((1, 128, 128, 3), 120, dtype=torch.uint8)
    changed = image.clone()
    changed[0, 64, 64] = 255
    with torch.inference_mode():
        difference = (encoder.eval().maps(image)[0] - encoder.maps(changed)[0]).abs().amax((0, 1))
    cells = torch.nonzero(difference.amax(0)).ravel() * 4
    assert cells.min() >= 64 - found.margin - 3
    assert cells.max() <= 64 + found.margin


@pytest.mark.parametrize(
    ("name", "layer"), [("test_vit", 1), ("mobilenetv3_small_050", 1), ("legacy_xception", 0), ("test_resnet", None)]
)
def test_layers_that_look_at_the_whole_patch_are_refused(name, layer):
    skip_without_maps(name)
    encoder = encoder_at(name, layer)
    assert reach(encoder) is None
    with pytest.raises(ValueError, match=r"dense_features=True needs .*(encoder_layer|earlier layer)"):
        known_reach(encoder)
    source = PatchSource(level(), points(), extent=96, size=96)
    assert dense_gain([SectionInput("A", [source], points())], encoder) == 0


def test_norm_over_space_is_seen_by_the_gradient():
    module = timm.create_model("resnet10t", num_classes=0, norm_layer=lambda n, **_: nn.GroupNorm(1, n)).eval()
    assert reach(load_encoder(module, layer=1)) is None


def test_image_is_read_tile_by_tile(monkeypatch):
    read = []

    def chunk(block, block_info=None):
        read.append(block_info[0]["array-location"][1:])
        return block

    rng = np.random.default_rng(0)
    array = da.from_array(rng.integers(0, 256, (3, 1200, 900), np.uint8), chunks=(3, 300, 300))
    array = array.map_blocks(chunk, dtype=np.uint8, meta=np.empty((0, 0, 0), np.uint8))
    read.clear()
    monkeypatch.setattr(settings, "image_memory", 1e-6)  # nothing is held whole
    source = PatchSource(Level(array, np.eye(3)), np.array([[100.0, 100.0], [140.0, 400.0]]), extent=64, size=64)
    window_means(Tiling.plan(source, Colors(), 128), Colors())
    assert {rows for rows, _ in read} <= {(0, 300), (300, 600)}
    assert {columns for _, columns in read} == {(0, 300)}


def test_sums_of_a_tile_come_from_the_cache(monkeypatch):
    encoder = encoder_at()
    source = PatchSource(level(seed=5), points(), extent=96, size=96)
    first = extract(SectionInput("A", [source], points(), dense=True), encoder).values
    monkeypatch.setattr(features.FrozenEncoder, "maps", lambda *_: pytest.fail("the network runs again"))
    again = extract(SectionInput("A", [source], points(), dense=True), encoder).values
    np.testing.assert_array_equal(first, again)


def test_spots_are_recognized_without_cutting_their_patches():
    wide = PatchSource(level(), points(), extent=300, size=96)
    found = SectionInput("A", [wide], points(), dense=True).fingerprint()
    assert len(np.unique(found)) == len(points())
    moved = PatchSource(level(), points()[::-1], extent=300, size=96)
    np.testing.assert_array_equal(SectionInput("B", [moved], points(), dense=True).fingerprint(), found[::-1])


def overlapping() -> tuple:
    tissue = make_tissue(side=12)
    return tissue, {"method": "ridge", "image_encoder": "efficientnet_lite0", "encoder_layer": 1, "input_size": "patch"}


@pytest.mark.parametrize(("patch_size", "chosen"), [(16, False), (160, True)])
def test_dense_features_are_chosen_where_windows_overlap(patch_size, chosen):
    tissue, arguments = overlapping()
    model = sth.tl.fit(tissue, patch_size=patch_size, **arguments)
    assert model.patch.dense is chosen
    for wanted in (True, False):
        assert sth.tl.fit(tissue, patch_size=patch_size, dense_features=wanted, **arguments).patch.dense is wanted


def test_model_predicts_the_way_it_was_fitted_also_when_it_was_saved(tmp_path):
    tissue, arguments = overlapping()
    model = sth.tl.fit(tissue, patch_size=32, dense_features=True, **arguments)
    model.save(tmp_path / "model")
    loaded = load(tmp_path / "model")
    assert loaded.patch == model.patch == PatchSpec(32, dense=True)
    for number, one in enumerate((model, loaded)):
        sth.tl.predict(tissue, one, key_added=f"k{number}")
    table = tissue["counts"]
    np.testing.assert_array_equal(table.layers["k0_pred"], table.layers["k1_pred"])
    assert table.obs["k0_seen"].all()
    assert bool(table.uns["k0"]["patch"]["dense"])
    cut = sth.tl.fit(tissue, patch_size=32, dense_features=False, **arguments)
    sth.tl.predict(tissue, cut, key_added="cut")
    assert not np.allclose(table.layers["k0_pred"], table.layers["cut_pred"])


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("color", {}, "looks at patches"),
        ("danet", {"finetune": True}, "looks at patches"),
        ("ridge", {"encoder_layer": None}, "encoder_layer"),
        ("ridge", {"image_encoder": "test_vit", "encoder_weights": "random"}, "convolutional"),
    ],
)
def test_dense_features_that_cannot_be_are_refused(method, options, message):
    tissue, arguments = overlapping()
    arguments |= {"method": method, "dense_features": True, "patch_size": 16} | options
    with pytest.raises(ValueError, match=message):
        sth.tl.fit(tissue, **arguments)


def test_symmetries_of_patches_need_patches():
    assert STNet.needs_patches(STNet.Options(symmetries=True))
    assert not STNet.needs_patches(STNet.Options(symmetries=False))
    ensemble, options = sth.models.resolve_method("stnet", {"n_models": 2, "symmetries": False})
    assert not ensemble.needs_patches(options)


def test_many_overlapping_patches_are_pointed_out(monkeypatch, caplog):
    monkeypatch.setattr(features, "_MANY", 50)
    source = PatchSource(level(), np.tile(points(), (20, 1)), extent=96, size=96)
    section = SectionInput("A", [source], np.tile(points(), (20, 1)))
    with caplog.at_level(logging.WARNING, "sthisto"):
        extract(section, encoder_at())
    assert "Fitted with dense_features=True" in caplog.text
