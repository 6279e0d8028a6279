"""Features of many overlapping windows: from one pass over the image against patch by patch, with the peak memory.

Also a Visium HD section: every bin of 8 µm of 6.5 x 6.5 mm at 77, 154 and 308 µm. Patch by patch is timed on a random
sample of the units, and multiplied.
Run: python benchmarks/dense.py [--check] [--hd]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _slides import write_slide

TARGET, LIMIT_HOURS = 20.0, 1.0
SLIDE = {"side": 10_000, "um_per_px": 0.5, "context": (1.0,)}
HD = {"side": 24_000, "um_per_px": 0.27, "context": (1.0, 2.0, 4.0)}


def encode(path: str, centers: np.ndarray, *, dense: bool, um_per_px: float, context: tuple[float, ...]) -> None:
    """Extract the early features of windows of 112 µm, or of 77 µm and wider ones."""
    import dask.array as da

    import sthisto as sth
    from sthisto._images.patches import PatchSource
    from sthisto._images.pyramid import Level
    from sthisto.models.encoders.features import extract

    sth.settings.cache_features = sth.settings.progress = False
    encoder = sth.models.load_encoder("efficientnet_lite0", layer="blocks.2")
    level = Level(da.from_zarr(path), np.eye(3))
    width = 112 if len(context) == 1 else 77
    sources = [PatchSource(level, centers, extent=width * wider / um_per_px, size=224) for wider in context]
    extract(sth.models.SectionInput("slide", sources, centers, dense=dense), encoder)


def child(path: str, n_units: int, sample: int | None, setting: dict[str, Any]) -> dict[str, float]:
    """Time one way; `sample` units are cut and encoded one by one, None takes all in one pass."""
    side = setting["side"]
    if len(setting["context"]) == 1:
        centers = np.random.default_rng(0).uniform(0, side, (n_units, 2))
    else:
        step = np.arange(np.sqrt(n_units)) * 8 / setting["um_per_px"] + 2
        centers = np.stack(np.meshgrid(step, step), -1).reshape(-1, 2)
    if sample:
        centers = centers[np.random.default_rng(1).choice(len(centers), sample, replace=False)]
    settings = {"um_per_px": setting["um_per_px"], "context": tuple(setting["context"]), "dense": sample is None}
    encode(path, centers[:1], **settings | {"dense": False})  # loads the encoder and the libraries
    before, start = peak_gib(), time.perf_counter()
    encode(path, centers, **settings)
    return {"units": len(centers), "seconds": time.perf_counter() - start, "peak": peak_gib(), "before": before}


def peak_gib() -> float:
    """Return the most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_a_child(**arguments: Any) -> dict[str, float]:
    """Run `child` in a process of its own, so that the peak is its own."""
    output = subprocess.run(
        [sys.executable, __file__, "--child", json.dumps(arguments)], check=True, capture_output=True, text=True
    ).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def measure(n_units: int, sample: int, setting: dict[str, Any]) -> tuple[float, float]:
    """Print both ways; return the hours of the pass over the image, and how many times faster it is."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "slide.zarr"
        write_slide(store, side=setting["side"], n_spots=1)
        path = str(next((store / "images" / "slide").glob("*/zarr.json")).parent)
        dense = in_a_child(path=path, n_units=n_units, sample=None, setting=setting)
        patches = in_a_child(path=path, n_units=n_units, sample=sample, setting=setting)
    whole = patches["seconds"] / patches["units"] * dense["units"]
    ratio = whole / dense["seconds"]
    print(f"{dense['units']:,} units, {setting['side']:,} x {setting['side']:,} px, {len(setting['context'])} width(s)")
    print(f"  one pass over the image        {dense['seconds']:10.1f} s")
    print(f"  patch by patch                 {whole:10.1f} s   ({sample:,} units in {patches['seconds']:.1f} s)")
    print(f"  ratio                          {ratio:10.1f} x")
    print(f"  peak memory, one pass          {dense['peak']:10.2f} GiB (before: {dense['before']:.2f})")
    print(f"  peak memory, patch by patch    {patches['peak']:10.2f} GiB (before: {patches['before']:.2f})", flush=True)
    return dense["seconds"] / 3600, ratio


def main() -> None:
    """Print time, ratio and memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help=f"exit with 1 below {TARGET:g}x or above {LIMIT_HOURS:g} h"
    )
    parser.add_argument("--hd", action="store_true", help="a Visium HD section with 600,000 bins of 8 µm too")
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--sample", type=int, default=2_000, help="units that are encoded patch by patch")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.child:
        print(json.dumps(child(**json.loads(arguments.child))))
        return
    _, ratio = measure(arguments.units, arguments.sample, SLIDE)
    hours = measure(600_000, arguments.sample, HD)[0] if arguments.hd else 0.0
    if arguments.check and (ratio < TARGET or hours > LIMIT_HOURS):
        sys.exit(1)


if __name__ == "__main__":
    main()
