"""Values that the original implementations computed; `tests/reference/README.md` says which and how."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent / "reference"
LARGER = Path(os.environ.get("STHISTO_REFERENCE", Path(__file__).parents[1] / "../shared/reference"))


def read_reference(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a file; skip the test where it is one of the larger files and they are not there."""
    path = HERE / name
    if not path.exists():
        path = LARGER / name
        if not path.exists():
            pytest.skip(f"{name} is not in {LARGER}; set STHISTO_REFERENCE to the folder of the larger files")
    with np.load(path) as arrays:
        return dict(arrays)
