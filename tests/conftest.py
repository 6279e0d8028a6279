"""Fixtures that every test may use. `builders` and `tissue` make the SpatialData; all tests may import them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # the processes share the cores; numpy and torch read it when they are imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent))

from builders import Region, grid, make_sdata

from sthisto import settings
from sthisto._utils import logging


@pytest.fixture(autouse=True)
def _own_settings(tmp_path_factory, monkeypatch):
    """Keep features in a folder of the test run, be quiet, and warn anew in every test."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr(settings, "cache_dir", cache)
    monkeypatch.setenv("STHISTO_CACHE", str(cache))  # for the processes that a test starts
    monkeypatch.setattr(settings, "progress", False)
    logging._warned.clear()


@pytest.fixture(autouse=True)
def _flush_nothing_to_disk(monkeypatch):
    """What is written to the disk itself is seen after a power cut alone; `test_atomic` checks that it is asked for."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def sdata():
    """One plain section."""
    return make_sdata()


@pytest.fixture
def two_regions():
    """Two sections of one table, each with its image and coordinate system."""
    return make_sdata(
        Region(name="A", image_key="A_image", system="A_slide"),
        Region(name="B", image_key="B_image", system="B_slide", centers=grid(320, 240, 60, seed=1)),
    )
