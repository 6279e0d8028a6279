import os
from pathlib import Path

import numpy as np
import pytest
import torch

DEFAULT_REFERENCE = Path(__file__).parents[2] / ".." / "shared" / "reference"


class Reference(dict):
    """Arrays of one file of the reference folder, as tensors."""

    def part(self, prefix):
        return {name.removeprefix(prefix): value for name, value in self.items() if name.startswith(prefix)}


@pytest.fixture(scope="session")
def reference():
    """Read a file of the folder with the original implementations' values; skip where there is none."""
    folder = Path(os.environ.get("STHISTO_REFERENCE", DEFAULT_REFERENCE))

    def read(name):
        path = folder / name
        if not path.exists():
            pytest.skip(f"no reference values at {path}; set STHISTO_REFERENCE to their folder")
        with np.load(path) as arrays:
            return Reference({key: torch.as_tensor(arrays[key]) for key in arrays.files})

    return read


@pytest.fixture
def assert_gradients():
    """Compare the gradients of a module's parameters with the expected ones, relative to the largest of each."""

    def check(expected, found, relative=1e-4):
        for name, parameter in found.items():
            error = (parameter.grad - expected[name]).abs().max() / expected[name].abs().max()
            assert error < relative, f"{name}: {error:.1e}"

    return check
