"""Time to read 5,000 patches of 224 px from a zarr-backed slide of 20,000 px, against the other ways to do it.

Run: python benchmarks/patches.py [--check]
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import spatialdata as sd
from _slides import write_slide
from spatialdata.dataloader import ImageTilesDataset

from sthisto._images.patches import PatchSpec
from sthisto._sdata.sections import read_sections

TILES_FASTER, MEMORY_SLOWER = 20.0, 1.3


def through_sthisto(path: Path, size: int) -> np.ndarray:
    """Read the slide's chunks once, in the order of the image."""
    (section,) = read_sections(sd.read_zarr(path))
    (source,) = section.patches(PatchSpec(size))
    patches = np.empty((len(source), size, size, 3), dtype=np.uint8)
    for index, batch in source.batches():
        patches[index] = batch
    return patches


def through_memory(path: Path, size: int) -> np.ndarray:
    """Read the whole level and slice it."""
    sdata = sd.read_zarr(path)
    level = np.asarray(sdata["slide"].data)
    centers = sdata["spots"].geometry.get_coordinates().to_numpy()
    patches = np.empty((len(centers), size, size, 3), dtype=np.uint8)
    for patch, (left, top) in zip(patches, np.floor(centers - size / 2 + 0.5).astype(int), strict=True):
        inside = level[:, max(top, 0) : top + size, max(left, 0) : left + size]
        bottom, right = top + size - level.shape[1], left + size - level.shape[2]
        outside = ((0, 0), (max(-top, 0), max(bottom, 0)), (max(-left, 0), max(right, 0)))
        patch[...] = np.moveaxis(np.pad(inside, outside, mode="reflect") if np.any(outside) else inside, 0, -1)
    return patches


def seconds_per_tile(path: Path, size: int, n_tiles: int) -> float:
    """Time SpatialData's loader on the first tiles, pixels computed, its own set-up left out."""
    tiles = ImageTilesDataset(
        sd.read_zarr(path),
        regions_to_images={"spots": "slide"},
        regions_to_coordinate_systems={"spots": "here"},
        tile_dim_in_units=float(size),
    )
    start = time.perf_counter()
    for i in range(n_tiles):
        np.asarray(tiles[i]["slide"].data)
    return (time.perf_counter() - start) / n_tiles


def best_of(repeats: int, way, *arguments) -> tuple[float, np.ndarray]:
    """Return the shortest time and the patches."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        patches = way(*arguments)
        times.append(time.perf_counter() - start)
    return min(times), patches


def main() -> None:
    """Print the times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000, help="width and height of the slide in px")
    parser.add_argument("--patches", type=int, default=5_000)
    parser.add_argument("--size", type=int, default=224, help="width of a patch in px")
    parser.add_argument("--tiles", type=int, default=50, help="tiles of ImageTilesDataset that are timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit with 1 where a target is missed")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.zarr"
        write_slide(path, side=arguments.side, n_spots=arguments.patches)
        ours, patches = best_of(arguments.repeats, through_sthisto, path, arguments.size)
        memory, sliced = best_of(arguments.repeats, through_memory, path, arguments.size)
        tiles = seconds_per_tile(path, arguments.size, arguments.tiles) * arguments.patches
    same = np.mean([(a == b).all() for a, b in zip(patches, sliced, strict=True)])
    print(f"{arguments.patches} patches of {arguments.size} px from {arguments.side} x {arguments.side} px in zarr")
    print(f"  sthisto, chunk by chunk            {ours:8.2f} s   (best of {arguments.repeats})")
    print(f"  level in memory, then sliced       {memory:8.2f} s   (best of {arguments.repeats})")
    print(f"  spatialdata ImageTilesDataset      {tiles:8.2f} s   ({arguments.tiles} tiles timed, scaled per tile)")
    print(f"  sthisto / memory                   {ours / memory:8.2f}     (target: at most {MEMORY_SLOWER})")
    print(f"  ImageTilesDataset / sthisto        {tiles / ours:8.1f}     (target: at least {TILES_FASTER:.0f})")
    print(f"  patches equal to the slices        {same:8.1%}")
    if arguments.check and (ours / memory > MEMORY_SLOWER or tiles / ours < TILES_FASTER or same < 1):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
