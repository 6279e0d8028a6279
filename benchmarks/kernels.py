"""Whether each hand-written kernel pays: whole jobs with it and with what a library offers in its place.

    python benchmarks/kernels.py [--kernels block scan] [--rounds 3] [--check]

Jobs: "fit" is `tl.fit` of DANet over 25 epochs on two sections of 300 spots and 785 genes, whose features are in the
cache; "encode" is `tl.fit` of ridge with DenseNet-121 and patches of 224 px on two sections of 60 spots. What
would hide the kernel is left out: one that does not pay here pays nowhere.

Every run is a process of its own with one thread, in turns; a job is run once to compile and to warm up and then
measured. Times are the processor's, the least of the rounds, so that other work on the machine hardly counts; memory is
what the process grows by (Linux). A kernel stays that makes its job at least 1.2
times as fast, or its memory half; ``--check`` exits with 1 where one does not.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import _library
import numpy as np
import pandas as pd
import torch
from _side_by_side import peak_growth

N_GENES = 785
LEAST_FASTER, LEAST_SMALLER = 1.2, 2.0

Job = Callable[[], object]


@dataclass(frozen=True)
class Kernel:
    """A kernel, the job that it is for, and what puts a library's call in its place."""

    what: str
    instead: str
    prepare: Callable[[], Job]
    replace: Callable[[], None]


def fit(n_spots: int, **options: object) -> Job:
    """Prepare a fit on synthetic sections, genes repeated to 785; the first call fills the cache of features."""
    from anndata import AnnData
    from scipy.sparse import hstack

    import sthisto as sth

    sth.settings.progress = False
    sdata = sth.datasets.synthetic(n_sections=2, n_spots=n_spots)
    table = sdata.tables["expression"]
    counts = hstack([table.X] * -(-N_GENES // table.n_vars), format="csr")[:, :N_GENES]
    genes = [f"gene{i}" for i in range(N_GENES)]
    repeated = AnnData(counts, obs=table.obs, var=pd.DataFrame(index=genes), uns=table.uns)
    sdata.tables["expression"] = repeated
    return lambda: sth.tl.fit(sdata, genes=genes, **options)


def fit_danet(backend: str | None = None) -> Job:
    """Prepare 25 epochs of DANet with its features in the cache, with a scan of the Mamba block by name."""
    from sthisto.nn import mamba

    if backend is not None:
        _library.put(mamba, "scan_backend", lambda x, wanted: backend)
    options = {"image_encoder": "resnet10t", "encoder_weights": "random", "max_epochs": 25, "patience": 25}
    return fit(300, method="danet", **options)


def encode() -> Job:
    """Prepare a ridge on DenseNet-121, every patch encoded anew."""
    import sthisto as sth

    sth.settings.cache_features = False
    return fit(60, method="ridge", patch_size=224, image_encoder="densenet121", encoder_weights="random")


def _block() -> None:
    from sthisto.nn import mamba

    _library.put(mamba, "scan_backend", lambda x, wanted: "torch")


def _scan() -> None:
    from sthisto.nn._kernels import scan

    _library.put(scan.BlockedScan, "apply", _library.step_by_step_scan)


def _densenet() -> None:
    from sthisto.models.encoders import inference

    _library.put(inference, "can_fold", lambda module: False)


KERNELS = {
    "block": Kernel("nn/_kernels/block.py", "the blocked scan in torch", fit_danet, _block),
    "scan": Kernel("nn/_kernels/scan.py", "step by step in torch", partial(fit_danet, backend="torch"), _scan),
    "densenet": Kernel("models/encoders/densenet.py", "timm's module", encode, _densenet),
}


def measure(name: str, *, by_library: bool) -> tuple[float, float]:
    """Return seconds and MiB of one job in this process."""
    kernel = KERNELS[name]
    if by_library:
        kernel.replace()
    call = kernel.prepare()
    torch.set_num_threads(1)
    seconds: list[float] = []

    def timed() -> None:
        start = time.process_time()
        call()
        seconds.append(time.process_time() - start)

    growth = peak_growth(lambda: timed)  # runs it twice, the first time to compile and to warm up
    return seconds[-1], growth


def in_child(name: str, folder: Path, *, by_library: bool) -> tuple[float, float]:
    """Measure in a process of its own, with caches that no other kind of run has written to."""
    kind = "library" if by_library else "kernel"
    command = [sys.executable, __file__, "--measure", name, kind]
    caches = {"NUMBA_CACHE_DIR": str(folder / name / kind), "STHISTO_CACHE": str(folder / "features")}
    found = subprocess.run(command, env=os.environ | caches, check=True, stdout=subprocess.PIPE, text=True)
    seconds, growth = map(float, found.stdout.split()[-2:])
    return seconds, growth


def main() -> None:
    """Print one row a kernel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", nargs="+", choices=list(KERNELS), default=list(KERNELS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a kernel does not pay")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, kind = options.measure
        with contextlib.redirect_stdout(sys.stderr):
            seconds, growth = measure(name, by_library=kind == "library")
        print(seconds, growth)
        return
    print(f"{'kernel':30}{'instead':28}{'s':>8}{'library':>9}{'faster':>8}{'MiB':>8}{'library':>9}{'smaller':>9}")
    pays = True
    with tempfile.TemporaryDirectory() as folder:
        for name in options.kernels:
            runs = [
                [in_child(name, Path(folder), by_library=by_library) for by_library in (False, True)]
                for _ in range(options.rounds)
            ]
            (own_s, own_mib), (library_s, library_mib) = np.min(runs, axis=0)
            faster, smaller = library_s / own_s, library_mib / max(own_mib, 1)
            pays &= bool(faster >= LEAST_FASTER or smaller >= LEAST_SMALLER)
            row = f"{KERNELS[name].what:30}{KERNELS[name].instead:28}{own_s:8.2f}{library_s:9.2f}{faster:7.2f}x"
            print(f"{row}{own_mib:8.0f}{library_mib:9.0f}{smaller:8.2f}x", flush=True)
    if options.check and not pays:
        sys.exit(1)


if __name__ == "__main__":
    main()
