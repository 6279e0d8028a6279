import pytest
import torch
from references import read_reference


class Reference(dict):
    """Arrays of one file of the reference folder, as tensors."""

    def part(self, prefix):
        return {name.removeprefix(prefix): value for name, value in self.items() if name.startswith(prefix)}


@pytest.fixture(scope="session")
def reference():
    """Read a file of the original implementations' values as tensors."""
    return lambda name: Reference({key: torch.as_tensor(value) for key, value in read_reference(name).items()})


@pytest.fixture
def assert_gradients():
    """Compare the gradients of a module's parameters with the expected ones, relative to the largest of each."""

    def check(expected, found, relative=1e-4):
        for name, parameter in found.items():
            error = (parameter.grad - expected[name]).abs().max() / expected[name].abs().max()
            assert error < relative, f"{name}: {error:.1e}"

    return check
