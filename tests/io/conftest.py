"""Fixtures of the tests with real layouts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from visium import Visium


@pytest.fixture(scope="session")
def visium():
    return Visium()


@pytest.fixture
def adata(visium):
    return visium.adata()
