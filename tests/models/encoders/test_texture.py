from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb_from_hed

from sthisto import settings
from sthisto._images.patches import PatchSource
from sthisto._images.pyramid import Level, Pyramid
from sthisto._images.stains import SlideStains, fit_stains
from sthisto.models import SectionInput, load_encoder
from sthisto.models.encoders.slide_grid import SlideGrid
from sthisto.models.encoders.texture import N_TEXTURES, UM_PER_PX, patch_texture
from sthisto.models.encoders.texture_windows import slide_facts, window_texture

UM = UM_PER_PX
"""µm per px of the pictures: a px of the image is one of texture."""


def stained(shape: tuple[int, int], seed: int = 0, vectors: np.ndarray = rgb_from_hed[:2]) -> np.ndarray:
    """Return tissue, (3, height, width) uint8, of two stains that vary on their own."""
    amounts = np.random.default_rng(seed).gamma(2, 0.35, (*shape, 2))
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.moveaxis((np.exp(-amounts @ vectors) * 255).round().astype(np.uint8), -1, 0)


def section(pixels: np.ndarray, centers: np.ndarray, um_per_px: float | None = UM) -> SectionInput:
    level = Level(pixels, np.eye(3))
    source = PatchSource(level, centers, extent=24, size=24)
    return SectionInput("A", [source], centers, image=Pyramid((level,)), um_per_px=um_per_px)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "cache_dir", tmp_path)


def test_macenko_finds_the_vectors_that_the_tissue_was_drawn_with():
    truth = np.array([[0.6, 0.7, 0.39], [0.2, 0.9, 0.39]])
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    pixels = np.moveaxis(stained((200, 200), vectors=truth), 0, -1).reshape(-1, 3) / 255
    found = fit_stains(pixels)
    assert (np.einsum("ij,ij->i", found.vectors, truth) > 0.98).all()


@pytest.mark.parametrize("pixels", [np.empty((0, 3)), np.full((500, 3), 0.5), np.ones((500, 3))])
def test_stains_of_a_slide_without_two_hues_are_the_usual_ones(pixels):
    expected = rgb_from_hed[:2] / np.linalg.norm(rgb_from_hed[:2], axis=1, keepdims=True)
    found = fit_stains(pixels)
    np.testing.assert_allclose(found.vectors, expected)
    assert np.isfinite(found.key()).all()


def test_stains_come_back_from_their_numbers():
    stains = fit_stains(np.moveaxis(stained((60, 60)), 0, -1).reshape(-1, 3) / 255)
    np.testing.assert_array_equal(SlideStains.from_key(stains.key()).key(), stains.key())


def test_window_texture_is_that_of_the_whole_picture_where_the_window_is_the_picture():
    pixels = stained((96, 96))
    whole = section(pixels, np.array([[48.0, 48.0]]))
    found = window_texture(whole, [96.0])[0, 0]
    expected = patch_texture(np.moveaxis(pixels, 0, -1), slide_facts(whole).stains)
    assert found.shape == (N_TEXTURES,)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_tiles_leave_no_seam(monkeypatch):
    from sthisto.models.encoders import texture_windows

    pixels = stained((150, 170))
    centers = np.random.default_rng(1).uniform(0, [170, 150], (40, 2))
    whole = section(pixels, centers)
    widths = [24.0, 60.0]
    expected = window_texture(whole, widths)
    monkeypatch.setattr(texture_windows, "_TILE", 64)
    monkeypatch.setattr(settings, "cache_features", False)
    np.testing.assert_allclose(window_texture(whole, widths), expected, rtol=1e-4, atol=1e-4)


def test_texture_of_a_spot_depends_neither_on_other_spots_nor_on_their_order():
    pixels = stained((150, 150))
    centers = np.random.default_rng(1).uniform(20, 130, (30, 2))
    all_spots, some = section(pixels, centers), section(pixels, centers[[7, 3]])
    every = window_texture(all_spots, [48.0])[0]
    few = window_texture(some, [48.0])[0]
    np.testing.assert_allclose(few, every[[7, 3]], rtol=1e-5, atol=1e-6)


def test_kept_texture_is_not_measured_again(monkeypatch):
    from sthisto.models.encoders import texture_windows

    pixels, centers = stained((100, 100)), np.array([[30.0, 40.0], [60.0, 50.0]])
    first = section(pixels, centers)
    expected = window_texture(first, [24.0])
    monkeypatch.setattr(texture_windows, "texture_maps", None)
    again = section(pixels, centers)
    np.testing.assert_array_equal(window_texture(again, [24.0]), expected)


def test_texture_of_an_image_that_was_edited_beside_the_patches_is_measured_again():
    pixels, centers = stained((200, 200)), np.array([[50.0, 50.0]])
    before = window_texture(section(pixels, centers), [96.0])
    edited = pixels.copy()
    edited[:, 75:90, 40:60] = 255  # inside the window, outside of the patch of 24 px
    after = window_texture(section(edited, centers), [96.0])
    assert np.abs(after - before).max() > 0.01


def test_distance_to_the_border_is_that_of_the_tissue():
    pixels = np.full((3, 200, 200), 245, dtype=np.uint8)
    pixels[:, 50:150, 50:150] = stained((100, 100))
    spots = np.array([[100.0, 100.0], [70.0, 100.0], [10.0, 10.0]])
    distance = SlideGrid.of(section(pixels, spots)).border_distance(spots)
    np.testing.assert_allclose(distance, [50, 20, 0], atol=3)


def test_grid_without_known_size_takes_a_24th_of_the_patch():
    spots = np.array([[50.0, 50.0]])
    assert SlideGrid.of(section(stained((100, 100)), spots, um_per_px=None)).step == 1
    assert SlideGrid.of(section(stained((100, 100)), spots, um_per_px=UM / 4)).step == 4


def test_texture_encoder_encodes_patches_without_weights():
    texture = load_encoder("texture")
    patches = np.moveaxis(stained((48, 96)), 0, -1).reshape(48, 2, 48, 3).swapaxes(0, 1)
    features = texture(torch.from_numpy(np.ascontiguousarray(patches)))
    assert features.shape == (2, N_TEXTURES)
    assert torch.isfinite(features).all()
    assert not list(texture.parameters())
    with pytest.raises(ValueError, match="no weights and no layers"):
        load_encoder("texture", layer=2)
