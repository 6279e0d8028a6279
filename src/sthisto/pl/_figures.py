"""New figures, and the closing of those that a failed call leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, dpi: float | None, *, constrained: bool = True) -> Figure:
    """Make a figure of `width` x `height` inches, whose axes make room for their labels when `constrained`."""
    return plt.figure(figsize=(width, height), dpi=dpi, layout="constrained" if constrained else "none")


@contextmanager
def closes_on_error() -> Iterator[None]:
    """Decorate a function that draws: when it fails, the figures that it made are closed."""
    before = set(plt.get_fignums())
    try:
        yield
    except BaseException:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)
        raise
