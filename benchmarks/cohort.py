"""A cohort of tiny synthetic slides: scaling over processes and dask, and what is left after faults.

    python benchmarks/cohort.py [--slides 200] [--kills 20] [--skip-scaling]

First predicts all slides in one process, in two, and on a local dask cluster, prints slides per minute, and compares
the tables. Then disturbs runs of a part of the slides: killed by SIGKILL at random moments, with a corrupt slide in the
middle, two runs in one folder at once, and on a file system that is full. Each ends with the tables of an undisturbed
run, or the script exits with 1.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import spatialdata as sd
from tifffile import imwrite

import sthisto as sth

warnings.filterwarnings("ignore")
GENES = ["COL1A1", "CD3E", "EPCAM"]
SIDE = 1100


def draw_slides(folder: Path, n_slides: int) -> None:
    """Write slides of 1 µm per px with pink tissue in the middle."""
    folder.mkdir(parents=True)
    for i in range(n_slides):
        rng = np.random.default_rng(i)
        pixels = np.full((SIDE, SIDE, 3), 245, dtype=np.uint8)
        pixels[200:800, 250:850] = rng.integers((150, 60, 120), (230, 140, 200), (600, 600, 3))
        imwrite(
            folder / f"slide{i:03d}.tif",
            pixels,
            photometric="rgb",
            tile=(256, 256),
            compression="zlib",
            resolution=(10_000, 10_000),
            resolutionunit="CENTIMETER",
        )


def save_model(path: Path) -> None:
    """Fit a small model and save it."""
    sdata = sth.datasets.synthetic(n_sections=2, n_patients=2, n_spots=60)
    sth.tl.fit(sdata, method="color", genes=GENES).save(path)


def tables(out: Path) -> dict[str, pd.DataFrame]:
    """Return the predictions of every slide."""
    return {path.stem: sd.read_zarr(path).tables["predicted"].to_df() for path in sorted(out.glob("[!.]*.zarr"))}


def same(first: Path, second: Path) -> bool:
    """Return whether two runs left the same slides with the same predictions."""
    one, other = tables(first), tables(second)
    return list(one) == list(other) and all(one[name].equals(other[name]) for name in one)


def command(slides: Path, model: Path, out: Path) -> list[str]:
    """Return the command that predicts a folder."""
    return [sys.executable, "-m", "sthisto", "predict", str(slides), "--model", str(model), "--out", str(out)]


def scaling(slides: Path, model: Path, folder: Path) -> bool:
    """Print the time in one process, in two, and on a dask cluster; return whether the tables are equal."""
    from distributed import LocalCluster

    n_slides = len(list(slides.iterdir()))

    def report(name: str, out: Path, **arguments: object) -> None:
        start = time.perf_counter()
        states = sth.cohort.predict(slides, model, out=out, **arguments)
        seconds = time.perf_counter() - start
        done = int(states["state"].eq("done").sum())
        print(f"{name:24s}{seconds:8.1f} s{60 * n_slides / seconds:10.0f} slides a minute   {done} of {n_slides} done")

    report("1 process", folder / "one")
    report("2 processes", folder / "two", workers=2)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        report("dask, 2 workers", folder / "dask", cluster=cluster.scheduler_address)
    return same(folder / "one", folder / "two") and same(folder / "one", folder / "dask")


def killed(slides: Path, model: Path, out: Path, n_kills: int) -> int:
    """Kill runs in one folder until one ends by itself; return how many were killed before it ended."""
    rng, kills = random.Random(0), 0
    while kills < n_kills:
        workers = str(1 + kills % 2)
        process = subprocess.Popen(
            [*command(slides, model, out), "--workers", workers],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        started = len(list((out / "states").glob("*.json"))) if out.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if out.exists() and len(list((out / "states").glob("*.json"))) > started:
                break
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1))
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_for_workers(process.pid)
        kills += 1
    sth.cohort.predict(slides, model, out=out)
    return kills


def wait_for_workers(group: int, most_seconds: float = 10.0) -> None:
    """Wait until killed workers are gone: while one ends, it holds the lock of its slide."""
    deadline = time.monotonic() + most_seconds
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """Mount a file system of a few MiB, which takes root's rights."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(slides: Path, model: Path, folder: Path, expected: Path) -> bool:
    """Fill the disk, run, make room, run again; return whether nothing is missing."""
    with small_disk(folder / "small", 40) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(b"0" * (39 * 2**20))
        states = sth.cohort.predict(slides, model, out=disk / "out")
        failed = states[states["state"] != "done"]
        print(f"full disk: {len(failed)} of {len(states)} slides failed, first: {failed['message'].iloc[0][:80]}")
        ballast.unlink()
        sth.cohort.predict(slides, model, out=disk / "out")
        return same(disk / "out", expected)


def faults(slides: Path, model: Path, folder: Path, n_kills: int) -> bool:
    """Disturb runs and print what each left; return whether all ended as the undisturbed one."""
    expected, found = folder / "undisturbed", {}
    sth.cohort.predict(slides, model, out=expected)

    kills = killed(slides, model, folder / "killed", n_kills)
    found[f"killed {kills} times"] = same(folder / "killed", expected)

    bad = slides / "slide002b.svs"
    bad.write_bytes(next(slides.glob("*.tif")).read_bytes()[:20_000])
    code = subprocess.run(command(slides, model, folder / "corrupt"), stdout=subprocess.DEVNULL).returncode
    bad.unlink()
    found["a corrupt slide in the middle"] = same(folder / "corrupt", expected) and code == 1

    both = [subprocess.Popen(command(slides, model, folder / "both"), stdout=subprocess.DEVNULL) for _ in range(2)]
    codes = [process.wait() for process in both]
    summary = pd.read_csv(folder / "both" / "summary.csv")
    all_done = bool(summary["state"].eq("done").all()) and 0 in codes
    found["two runs at once"] = same(folder / "both", expected) and all_done

    try:
        found["a full disk"] = full_disk(slides, model, folder, expected)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        print(f"a full disk: not tried, no small file system could be mounted ({error})")
    for name, is_same in found.items():
        print(f"{name:32s}{'the tables of an undisturbed run' if is_same else 'DIFFERENT TABLES'}")
    return all(found.values())


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=200, help="slides of the scaling")
    parser.add_argument("--disturbed", type=int, default=30, help="slides of the runs that are disturbed")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--skip-scaling", action="store_true")
    options = parser.parse_args()
    sth.settings.progress = False
    with tempfile.TemporaryDirectory() as name:
        folder, good = Path(name), True
        save_model(folder / "model.sthisto")
        if not options.skip_scaling:
            draw_slides(folder / "slides", options.slides)
            good = scaling(folder / "slides", folder / "model.sthisto", folder)
            print(f"equal tables: {good}")
        draw_slides(folder / "few", options.disturbed)
        good &= faults(folder / "few", folder / "model.sthisto", folder, options.kills)
    if not good:
        sys.exit(1)


if __name__ == "__main__":
    main()
