"""Does the confidence see a bad image? The median confidence of a section as its image is spoiled or swapped.

    STHISTO_HER2ST=her2st python benchmarks/corruptions.py
    STHISTO_HER2ST=her2st python benchmarks/corruptions.py --methods ridge --slide CMU-1-Small-Region.svs

A model is fitted on A1, C3 and C4 of her2st, two patients, and predicts A2 and what was made of it. Learned weights
play no part in the confidence, so methods with epochs are trained for one. `*` marks sections that `tl.predict` warns
of.
"""

from __future__ import annotations

import argparse
import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage import color, data, transform
from spatialdata import SpatialData
from spatialdata.models import Image2DModel
from spatialdata.transformations import get_transformation

import sthisto as sth

TRAIN, TEST = ("A1", "C3", "C4"), "A2"
METHODS = ("color", "ridge", "kernel")
_SLIDE_UM_PER_PX = 0.5
Picture = np.ndarray
"""(height, width, 3) uint8."""


def blur(image: Picture, um_per_px: float) -> np.ndarray:
    """Gaussian, σ of 5 µm."""
    sigma = 5 / um_per_px
    return ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0))


def out_of_focus(image: Picture, um_per_px: float) -> np.ndarray:
    """Mean over a disk with a radius of 10 µm, as a lens makes it."""
    radius = max(10 / um_per_px, 1.5)
    y, x = np.mgrid[-int(radius) : int(radius) + 1, -int(radius) : int(radius) + 1]
    disk = (x**2 + y**2 <= radius**2).astype(np.float32)
    return ndimage.convolve(image.astype(np.float32), (disk / disk.sum())[..., None], mode="nearest")


def restained(image: Picture, um_per_px: float) -> np.ndarray:
    """Hematoxylin at 0.6, eosin at 1.5 of its strength."""
    stains = color.rgb2hed(image) * np.array([0.6, 1.5, 1.0])
    return color.hed2rgb(stains) * 255


def recolored(image: Picture, um_per_px: float) -> np.ndarray:
    """Hue turned by an eighth of the circle."""
    hue = color.rgb2hsv(image)
    hue[..., 0] = (hue[..., 0] + 0.125) % 1
    return color.hsv2rgb(hue) * 255


def blocky(image: Picture, um_per_px: float) -> np.ndarray:
    """Resampled to 12 µm per px and back, by nearest neighbors."""
    step = max(2, round(12 / um_per_px))
    rows, columns = (np.arange(n) // step * step for n in image.shape[:2])
    return image[rows][:, columns]


def jpeg(image: Picture, um_per_px: float) -> np.ndarray:
    """JPEG of quality 8."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=8)
    return np.asarray(Image.open(buffer))


def pen_stroke(shape: tuple[int, ...], um_per_px: float) -> np.ndarray:
    """Return where a pen 600 µm wide went: three diagonal strokes, (height, width) bool."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return ((x + y) * um_per_px) % 1800 < 600 * np.sqrt(2)


def pen(image: Picture, um_per_px: float) -> np.ndarray:
    """Draw with a blue pen that lets a third of the light through."""
    drawn = image.astype(np.float32)
    stroke = pen_stroke(image.shape, um_per_px)
    drawn[stroke] = drawn[stroke] / 3 + np.array([20, 40, 130])
    return drawn


CORRUPTIONS: dict[str, Callable[[Picture, float], np.ndarray]] = {
    "as it is": lambda image, um_per_px: image,
    "blurred": blur,
    "out of focus": out_of_focus,
    "restained": restained,
    "recolored": recolored,
    "blocky": blocky,
    "JPEG 8": jpeg,
    "pen": pen,
}
WRONG_SCALE = {"µm per px halved": 0.5, "µm per px doubled": 2.0}


def swapped(picture: Picture, um_per_px: float, image: Picture, section_um_per_px: float) -> np.ndarray:
    """Return other tissue at the section's resolution, mirrored until it is as large as the section."""
    size = [max(2, round(n * um_per_px / section_um_per_px)) for n in picture.shape[:2]]
    small = transform.resize(picture[..., :3], size, anti_aliasing=True, preserve_range=True)
    more = [(0, max(0, wanted - n)) for wanted, n in zip(image.shape[:2], size, strict=True)]
    return np.pad(small, [*more, (0, 0)], mode="symmetric")[: image.shape[0], : image.shape[1]]


def other_tissues(slide: Path | None) -> dict[str, tuple[Picture, float]]:
    """Return pictures of what the model never saw, and their µm per px (a guess for those of scikit-image)."""
    drawn = sth.datasets.synthetic(n_sections=1, n_spots=200)
    found = {
        "synthetic tissue": (pixels_of(drawn.images["S1_image"]), 0.8),
        "immunohistochemistry": (data.immunohistochemistry(), 0.5),
        "retina": (data.retina(), 3.0),
    }
    if slide is not None:
        (scan,) = sth.io.read_slide(slide).images.values()
        found[slide.stem] = (pixels_of(scan), _SLIDE_UM_PER_PX)
    return found


def pixels_of(element: Any) -> Picture:
    """Return the finest level of an image element."""
    finest = element["scale0"]["image"] if hasattr(element, "keys") else element
    return np.moveaxis(np.asarray(finest.data), 0, -1)


def with_image(pixels: np.ndarray) -> SpatialData:
    """Return the test section with another image in the same place."""
    sdata = sth.datasets.her2st(sections=[TEST])
    key = f"{TEST}_image"
    place = get_transformation(sdata.images[key], get_all=True)
    sdata.images[key] = Image2DModel.parse(
        np.moveaxis(pixels.clip(0, 255).astype(np.uint8), -1, 0), dims=("c", "y", "x"), transformations=place
    )
    return sdata


class Warnings(logging.Handler):
    """Remembers whether a section was called unlike the training sections."""

    def __init__(self) -> None:
        super().__init__()
        self.raised = False

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a message."""
        self.raised |= "look unlike" in record.getMessage()


def confidence(sdata: SpatialData, model: Any, um_per_px: float | None) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the confidence of every spot, its x and y in px, and whether `predict` warned."""
    heard = Warnings()
    logging.getLogger("sthisto").addHandler(heard)
    sth.tl.predict(sdata, model, um_per_px=um_per_px, new_table_key="predicted")
    logging.getLogger("sthisto").removeHandler(heard)
    table = sdata.tables.pop("predicted")
    return table.obs["sthisto_confidence"].to_numpy(), table.obsm["spatial"].astype(int), heard.raised


def main() -> None:
    """Print one row a corruption and one column a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--slide", type=Path, help="a slide of other tissue, read by sthisto.io.read_slide")
    chosen = parser.parse_args()
    sth.settings.progress = False
    training = sth.datasets.her2st(sections=TRAIN)
    models = {name: fit(training, name) for name in chosen.methods}
    clean = sth.datasets.her2st(sections=[TEST])
    image = pixels_of(clean.images[f"{TEST}_image"])
    um_per_px = float(
        get_transformation(clean.images[f"{TEST}_image"], TEST).to_affine_matrix(("x", "y"), ("x", "y"))[0, 0]
    )
    cases = {name: (with_image(change(image, um_per_px)), None) for name, change in CORRUPTIONS.items()}
    cases |= {name: (sth.datasets.her2st(sections=[TEST]), um_per_px * by) for name, by in WRONG_SCALE.items()}
    for name, (picture, scale) in other_tissues(chosen.slide).items():
        cases[name] = (with_image(swapped(picture, scale, image, um_per_px)), None)
    stroke = pen_stroke(image.shape, um_per_px)
    print("| A2 | " + " | ".join(models) + " |")
    print("|---|" + "---|" * len(models))
    for case, (sdata, scale) in cases.items():
        cells = []
        for model in models.values():
            found, centers, warned = confidence(sdata, model, scale)
            if case == "pen":
                found = found[stroke[centers[:, 1], centers[:, 0]]]
            cells.append(f"{np.median(found):.3f}{'*' if warned else ''}")
        print(f"| {case}{' (spots under it)' if case == 'pen' else ''} | " + " | ".join(cells) + " |", flush=True)


def fit(training: SpatialData, method: str) -> Any:
    """Fit a method on the training sections, with the encoder that needs no download."""
    cls = sth.models.METHODS[method]
    options: dict[str, Any] = {"max_epochs": 1} if "max_epochs" in cls.option_names() else {}
    if cls.uses_encoder:
        options["image_encoder"] = "efficientnet_lite0"
    return sth.tl.fit(training, method=method, n_top_genes=50, patch_size=112, patient_key="patient", **options)


if __name__ == "__main__":
    main()
