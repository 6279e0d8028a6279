"""Colors and sharpness of patches: against scikit-image, and computed once for the same pixels."""

import dask.array as da
import numpy as np
import pytest
from skimage.color import hed_from_rgb, rgb2hed

from sthisto._images.patches import PatchSource
from sthisto._images.pyramid import Level
from sthisto._utils.settings import settings
from sthisto.models import SectionInput
from sthisto.models.pixels import color_numbers, pixel_blocks, sharpness_numbers


@pytest.mark.parametrize("shape", [(3, 16, 16, 3), (2, 5, 9, 3), (1, 1, 1, 3), (0, 8, 8, 3)])
def test_colors_are_those_of_scikit_image(shape):
    patches = np.random.default_rng(0).integers(1, 256, shape, dtype=np.uint8)
    axes = (1, 2)
    stains = -np.log(patches / 255) @ hed_from_rgb
    np.testing.assert_allclose(np.maximum(stains, 0) / -np.log(1e-6), rgb2hed(patches), atol=1e-6)
    expected = [(patches / 255).mean(axis=axes), (patches / 255).std(axis=axes), stains.mean(axis=axes)]
    found = color_numbers(patches)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=2e-6)


def test_a_patch_without_pixels_to_compare_has_no_sharpness():
    assert sharpness_numbers(np.zeros((4, 3, 3, 3), dtype=np.uint8)).shape == (4, 0)


def test_the_same_pixels_are_looked_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "cache_dir", tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (3, 64, 64), dtype=np.uint8)

    def section(pixels):
        centers = np.array([[20.0, 20.0], [40.0, 30.0]])
        level = Level(da.from_array(pixels, chunks=(3, 32, 32)), np.eye(3))
        return SectionInput("A", [PatchSource(level, centers, extent=16, size=16)], centers)

    first = pixel_blocks(section(image))
    other = pixel_blocks(section(image[:, ::-1]))
    assert not np.array_equal(first[0], other[0])
    monkeypatch.setattr(PatchSource, "batches", None)
    for one, again in zip(first, pixel_blocks(section(image)), strict=True):
        np.testing.assert_array_equal(one, again)
