"""How much memory and time a fit is said to take, against what it takes."""

from __future__ import annotations

import logging
import tracemalloc

import numpy as np
import pytest
from tissue import encoder, make_tissue

import sthisto as sth
from sthisto.models import METHODS, kernels
from sthisto.models.blocks import BlockLayout
from sthisto.models.landmarks import EXACT_SPOTS
from sthisto.models.low_rank import fit_components
from sthisto.tl import _train

QUICK = {"image_encoder": encoder(), "patch_size": 16}


@pytest.fixture
def model():
    return sth.tl.fit(make_tissue("AB"), method="kernel", **QUICK)


@pytest.mark.parametrize("largest_float64", [10_000_000, 0])
def test_the_estimate_is_what_fitting_a_kernel_takes(monkeypatch, largest_float64):
    """With Cholesky factors, as from 3,000 spots on, in both precisions."""
    monkeypatch.setattr(kernels, "_EIGEN_SPOTS", 100)
    monkeypatch.setattr(kernels, "_FLOAT64_ENTRIES", largest_float64)
    rng = np.random.default_rng(0)
    n, layout = 900, BlockLayout((8, 8), (0.5, 0.5))
    x, target, group = rng.normal(size=(n, 16)), rng.normal(size=(n, 5)), np.arange(n) % 3
    components = [fit_components(target, (2, 3))]
    tracemalloc.start()
    kernel = kernels.block_kernel(x, x, layout, "rbf")
    kernel = kernels.center_columns(kernels.center_columns(kernel, group).T, group).T
    kernels.fit_kernel(kernel, [target], components, alphas=(0.01, 0.1, 1.0), folds=group)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kernel.dtype == ("float64" if largest_float64 else "float32")
    assert kernels.inversion_bytes(n) == pytest.approx(peak, rel=0.2)


def test_it_is_counted_where_spots_are_compared_with_every_other(model):
    assert model.fit_memory(EXACT_SPOTS) == 6 * 4 * EXACT_SPOTS**2
    assert model.fit_memory(EXACT_SPOTS + 1) == 0
    assert METHODS["mean"](["a"], patch=model.patch).fit_memory(EXACT_SPOTS) == 0


@pytest.mark.parametrize(
    ("size", "free", "level", "words"),
    [
        (6 * 2**30, 100 * 2**30, logging.INFO, "98 training spots takes about 6.0 GiB."),
        (6 * 2**30, None, logging.INFO, "takes about 6.0 GiB."),
        (6 * 2**30, 7 * 2**30, logging.WARNING, "about 6.0 GiB, and 7.0 GiB are free. Fit on fewer sections"),
        (2**29, 2**29, logging.WARNING, "about 0.5 GiB, and 0.5 GiB are free"),
        (2**29, 100 * 2**30, None, ""),
        (1000, 0, None, ""),
    ],
)
def test_much_memory_is_told_and_too_much_is_warned_of(model, monkeypatch, caplog, size, free, level, words):
    caplog.set_level(logging.INFO, "sthisto")
    monkeypatch.setattr(type(model), "fit_memory", lambda self, n_spots: size)
    monkeypatch.setattr(_train, "available_memory", lambda: free)
    sth.tl.fit(make_tissue("AB"), method="kernel", **QUICK)
    told = [record for record in caplog.records if "takes about" in record.getMessage()]
    assert [record.levelno for record in told] == ([] if level is None else [level])
    assert words in caplog.text


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.01, None), (0.5, "400 training spots for 2 strengths takes about 1 minute")]
)
def test_a_long_inversion_is_told_by_the_cube_of_the_spots(monkeypatch, caplog, seconds, words):
    """4 times the spots that are timed: 64 times the time, for each strength."""
    caplog.set_level(logging.INFO, "sthisto")
    monkeypatch.setattr(kernels, "_EIGEN_SPOTS", 200)
    monkeypatch.setattr(kernels, "_TIMED_SPOTS", 100)
    clock = iter([10.0, 10.0 + seconds])
    monkeypatch.setattr(kernels, "perf_counter", lambda: next(clock))
    kernel = np.eye(400)
    inverses = dict(kernels._inverses(kernel, (0.01, 0.1)))
    for strength, inverse in inverses.items():
        np.testing.assert_allclose(inverse, np.eye(400) / (1 + strength), atol=1e-12)
    assert [record.getMessage() for record in caplog.records if "Inverting" in record.getMessage()] == (
        [] if words is None else [f"Inverting the kernel between {words} on this machine."]
    )


def test_a_short_inversion_is_not_timed(monkeypatch):
    monkeypatch.setattr(kernels, "_EIGEN_SPOTS", 100)
    monkeypatch.setattr(kernels, "perf_counter", None)
    assert len(list(kernels._inverses(np.eye(200), (1.0,)))) == 1
