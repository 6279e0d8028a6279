"""Features of a section of 512 patches of 224 px: the first time, and again from the cache (read and hashed again).

Run: python benchmarks/feature_cache.py [--check]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from statistics import median

import numpy as np

from sthisto import settings
from sthisto._images.fingerprints import fingerprints
from sthisto._images.patches import PatchSource
from sthisto._images.pyramid import Level
from sthisto.models import SectionInput, load_encoder
from sthisto.models.encoders.features import extract

N_PATCHES, SIZE, SIDE, LEAST_RATIO = 512, 224, 4096, 50


def main() -> None:
    """Print the ratio, and what of the second time is hashing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help=f"exit with 1 below {LEAST_RATIO} times")
    parser.add_argument("--image-encoder", default="densenet121")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)
    centers = rng.uniform(SIZE, SIDE - SIZE, (N_PATCHES, 2))
    encoder = load_encoder(arguments.image_encoder, weights="random")
    source = PatchSource(Level(image, np.eye(3)), centers, extent=SIZE, size=SIZE)
    settings.progress = False
    with tempfile.TemporaryDirectory() as folder:
        settings.cache_dir = folder
        seconds = [timed(lambda: extract(SectionInput("slide", [source], centers), encoder)) for _ in range(6)]
    patches = source.read()
    again = median(seconds[1:])
    print(f"{arguments.image_encoder}, {N_PATCHES} patches of {SIZE} px")
    print(f"first time           {seconds[0]:8.3f} s")
    print(f"second time          {again:8.3f} s   {seconds[0] / again:.0f} times faster (target {LEAST_RATIO})")
    print(f"  digest of weights  {median(timed(encoder.digest) for _ in range(5)):8.3f} s")
    print(f"  hashing patches    {median(timed(lambda: fingerprints(patches)) for _ in range(5)):8.3f} s")
    if arguments.check and seconds[0] / again < LEAST_RATIO:
        sys.exit(1)


def timed(call) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
