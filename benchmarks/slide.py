"""A slide of 40,000 px from its file to a written table: time, peak memory, and tiles a second against LazySlide.

    python benchmarks/slide.py [--side 40000] [--pitch-um 200] [--lazyslide] [--check]

Draws a tiled JPEG pyramid with tissue in an ellipse (0.5 µm per px), then predicts it with `sthisto.cohort.predict` in
a process of its own, by ridge on texture and on efficientnet_lite0. With ``--lazyslide``, the same encoder runs
through LazySlide's tiling and feature extraction on the same slide (pip install lazyslide), and through sthisto's on
patches of the same width; the ratio is of one run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tifffile import TiffWriter

UM_PER_PX, TILE, LIMIT_GIB = 0.5, 512, 2.0
FACTORS = (1, 4, 16)
ENCODERS = ("texture", "efficientnet_lite0")


def draw_slide(path: Path, side: int) -> None:
    """Write levels of tiles, of which a few differ, with tissue in an ellipse."""
    rng = np.random.default_rng(0)
    cells = rng.integers((150, 60, 120), (230, 140, 200), (8, TILE // 8, TILE // 8, 3), dtype=np.uint8)
    tissue = cells.repeat(8, axis=1).repeat(8, axis=2)
    blank = np.full((TILE, TILE, 3), 245, dtype=np.uint8)

    def tiles(width: int) -> Iterator[np.ndarray]:
        n_tiles = -(-width // TILE)
        for row, column in np.ndindex(n_tiles, n_tiles):
            y, x = (2 * (place + 0.5) * TILE / width - 1 for place in (row, column))
            yield tissue[(row * 3 + column) % len(tissue)] if x**2 + 1.5 * y**2 < 0.6 else blank

    with TiffWriter(path, bigtiff=True) as writer:
        for factor in FACTORS:
            width = side // factor
            writer.write(
                tiles(width),
                shape=(width, width, 3),
                dtype=np.uint8,
                photometric="rgb",
                tile=(TILE, TILE),
                compression="jpeg",
                subfiletype=int(factor > 1),
                metadata=None,
                resolution=(1e4 / UM_PER_PX / factor,) * 2,
                resolutionunit="CENTIMETER",
            )


def fit_model(path: Path, encoder: str) -> None:
    """Fit ridge on synthetic sections and save it."""
    import sthisto as sth

    sth.settings.progress = False
    sdata = sth.datasets.synthetic(n_sections=2, n_patients=2, n_spots=150, um_per_px=UM_PER_PX)
    sth.tl.fit(sdata, method="ridge", image_encoder=encoder, patch_um=112, n_top_genes=50).save(path)


def predict(slide: str, model: str, out: str, pitch_um: float) -> dict[str, float]:
    """Predict the slide in this process."""
    import sthisto as sth

    warnings.simplefilter("ignore")
    sth.settings.cache_features = sth.settings.progress = False
    loaded = peak_gib()
    start = time.perf_counter()
    states = sth.cohort.predict([slide], model, out=out, pitch_um=pitch_um)
    seconds = time.perf_counter() - start
    if states["state"][0] != "done":
        raise SystemExit(states["message"][0])
    return {"spots": int(states["spots"][0]), "seconds": seconds, "loaded_gib": loaded, "peak_gib": peak_gib()}


def peak_gib() -> float:
    """Return the most memory that this process has had so far: `ru_maxrss` would hold that of its parent too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) / 2**20


def against_lazyslide(slide: str, tile_px: int) -> dict[str, float]:
    """Return tiles a second of LazySlide and of sthisto with one encoder on one slide, tiling and reading included."""
    import lazyslide
    import torch
    import wsidata
    from torchvision.transforms.v2 import Compose, Normalize, Resize, ToDtype, ToImage

    import sthisto as sth
    from sthisto._images.patches import PatchSpec
    from sthisto._sdata.inputs import section_input
    from sthisto._sdata.sections import read_sections

    warnings.simplefilter("ignore")
    sth.settings.cache_features = sth.settings.progress = False
    encoder = sth.models.load_encoder("efficientnet_lite0")
    wsi = wsidata.open_wsi(slide)
    start = time.perf_counter()
    lazyslide.pp.find_tissues(wsi)
    lazyslide.pp.tile_tissues(wsi, tile_px, mpp=UM_PER_PX)
    mean, std = (values.flatten().tolist() for values in (encoder.mean, encoder.std))
    scaled = [ToImage(), Resize(encoder.input_size), ToDtype(torch.float32, scale=True), Normalize(mean, std)]
    module = encoder.module.eval()
    lazyslide.tl.feature_extraction(wsi, model=module, transform=Compose(scaled), key_added="lite0", pbar=False)
    theirs = len(wsi.shapes["tiles"]) / (time.perf_counter() - start)

    start = time.perf_counter()
    sdata = sth.io.read(slide)
    sth.pp.tissue_grid(sdata, pitch_um=tile_px * UM_PER_PX)
    (section,) = read_sections(sdata)
    features = sth.models.extract(section_input(section, PatchSpec(tile_px, UM_PER_PX)), encoder)
    ours = len(features.values) / (time.perf_counter() - start)
    return {"lazyslide": theirs, "sthisto": ours}


def child(*arguments: str) -> dict[str, float]:
    """Run a part in a process of its own and return its figures."""
    run = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Print what each encoder takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=40_000, help="width and height of the slide in px")
    parser.add_argument("--pitch-um", type=float, default=200.0, help="distance between spots in µm")
    parser.add_argument("--lazyslide", action="store_true", help="compare with LazySlide")
    parser.add_argument("--check", action="store_true", help=f"exit with 1 where the peak is above {LIMIT_GIB} GiB")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, *values = options.child
        figures = against_lazyslide(values[0], 224) if what == "lazyslide" else predict(*values, options.pitch_um)
        print(json.dumps(figures))
        return
    with tempfile.TemporaryDirectory() as name:
        folder, peaks = Path(name), []
        start = time.perf_counter()
        draw_slide(folder / "slide.tif", options.side)
        print(f"slide of {options.side} px drawn in {time.perf_counter() - start:.0f} s")
        for encoder in ENCODERS:
            fit_model(folder / encoder, encoder)
            paths = (str(folder / "slide.tif"), str(folder / encoder), str(folder / f"out-{encoder}"))
            found = child("--pitch-um", str(options.pitch_um), "--child", "predict", *paths)
            peaks.append(found["peak_gib"])
            rate = 3600 / found["seconds"]
            print(
                f"{encoder:20s}{found['spots']:8.0f} spots{found['seconds']:8.1f} s{rate:8.1f} slides an hour   "
                f"peak {found['peak_gib']:.2f} GiB, of it {found['loaded_gib']:.2f} before"
            )
        if options.lazyslide:
            found = child("--child", "lazyslide", str(folder / "slide.tif"))
            theirs, ours = found["lazyslide"], found["sthisto"]
            print(f"tiles a second: LazySlide {theirs:.1f}, sthisto {ours:.1f}, ratio {ours / theirs:.2f}")
    if options.check and max(peaks) > LIMIT_GIB:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
