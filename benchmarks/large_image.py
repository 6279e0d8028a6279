"""Peak memory and time to read every patch of a zarr-backed slide of 60,000 x 60,000 px, and to predict it.

The prediction is ridge on a small encoder with random weights: what is measured is the memory.
Run: python benchmarks/large_image.py [--check]
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

from _slides import write_slide

LIMIT_GIB = 4.0
N_TRAINING = 500


def read_patches(path: str, size: int) -> dict[str, float]:
    """Read all patches, keep none."""
    import spatialdata as sd

    from sthisto._images.patches import PatchSpec
    from sthisto._sdata.sections import read_sections

    (section,) = read_sections(sd.read_zarr(path))
    (source,) = section.patches(PatchSpec(size))
    before, start, n_read = peak_gib(), time.perf_counter(), 0
    for index, _ in source.batches():
        n_read += len(index)
    return {
        "patches": n_read,
        "seconds": time.perf_counter() - start,
        "before_gib": before,
        "peak_gib": peak_gib(),
    }


def predict_slide(path: str, size: int) -> dict[str, float]:
    """Fit ridge on a few spots of the slide, and predict all."""
    import numpy as np
    import spatialdata as sd

    import sthisto as sth

    sth.settings.cache_features = sth.settings.progress = False
    sdata = sd.read_zarr(path)
    table = sdata["table"]
    table.X = np.random.default_rng(0).poisson(20, table.shape).astype(np.float32)
    table.obs["sthisto_split"] = np.where(np.arange(table.n_obs) < N_TRAINING, "train", "test")
    encoder = sth.models.load_encoder("resnet10t", weights="random", input_size="patch")
    start = time.perf_counter()
    model = sth.tl.fit(sdata, method="ridge", genes=table.var_names, image_encoder=encoder, patch_size=size)
    before, fitted = peak_gib(), time.perf_counter()
    sth.tl.predict(sdata, model)
    n_predicted = int(np.isfinite(table.layers["sthisto_pred"]).all(axis=1).sum())
    return {
        "patches": n_predicted,
        "fit_seconds": fitted - start,
        "seconds": time.perf_counter() - fitted,
        "before_gib": before,
        "peak_gib": peak_gib(),
    }


def peak_gib() -> float:
    """Return the most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def in_a_child(path: Path, size: int, what: str) -> dict[str, float]:
    """Run `read_patches` or `predict_slide` in a process of its own, so that the peak is its own."""
    command = [sys.executable, __file__, "--child", str(path), "--what", what, "--size", str(size)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    figures: dict[str, float] = json.loads(output.splitlines()[-1])
    return figures


def main() -> None:
    """Print the peak and what the whole level would take."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=60_000, help="width and height of the slide in px")
    parser.add_argument("--spots", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=224, help="width of a patch in px")
    parser.add_argument("--check", action="store_true", help=f"exit with 1 where the peak is above {LIMIT_GIB} GiB")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--what", choices=("read", "predict"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.child:
        task = predict_slide if arguments.what == "predict" else read_patches
        print(json.dumps(task(arguments.child, arguments.size)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.zarr"
        start = time.perf_counter()
        write_slide(path, side=arguments.side, n_spots=arguments.spots)
        written = time.perf_counter() - start
        disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 2**20
        read = in_a_child(path, arguments.size, "read")
        predicted = in_a_child(path, arguments.size, "predict")
    level = 3 * arguments.side**2 / 2**30
    print(f"{read['patches']} patches of {arguments.size} px from {arguments.side} x {arguments.side} px in zarr")
    print(f"  slide made in                      {written:8.1f} s   ({disk:.0f} MiB on disk, deleted again)")
    print(f"  the level in memory would take     {level:8.2f} GiB")
    print(f"  patches read in                    {read['seconds']:8.1f} s")
    report_memory(read)
    print(f"  fitted (all spots encoded) in      {predicted['fit_seconds']:8.1f} s")
    print(f"  {predicted['patches']:6d} spots predicted in          {predicted['seconds']:8.1f} s")
    report_memory(predicted)
    if arguments.check and max(read["peak_gib"], predicted["peak_gib"]) > LIMIT_GIB:
        raise SystemExit(1)


def report_memory(figures: dict[str, float]) -> None:
    """Print the peak of a process, and what of it was there before the work."""
    print(f"    peak memory of the process       {figures['peak_gib']:8.2f} GiB (limit {LIMIT_GIB:g})")
    print(f"    of it before                     {figures['before_gib']:8.2f} GiB")


if __name__ == "__main__":
    main()
