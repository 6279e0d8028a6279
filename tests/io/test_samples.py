import numpy as np
import pytest
from tifffile import imwrite

from sthisto.io._samples import lazy_tiff

RGB = np.random.default_rng(0).integers(0, 255, (2100, 90, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (RGB, {}),
        (RGB, {"rowsperstrip": 7}),
        (RGB, {"tile": (64, 64), "compression": "zlib"}),
        (RGB.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}),
    ],
)
def test_any_part_of_a_tiff_is_what_was_written(tmp_path, pixels, options):
    imwrite(tmp_path / "slide.tif", pixels, **options)
    image = lazy_tiff(tmp_path / "slide.tif")
    assert 512 < max(image.chunksize) <= 1024
    np.testing.assert_array_equal(image, RGB)
    np.testing.assert_array_equal(image[2040:2060, 3:80], RGB[2040:2060, 3:80])
