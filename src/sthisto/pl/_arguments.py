"""What the arguments of every plot may be, beside those that all public functions share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from sthisto._utils.arguments import checked
from sthisto._utils.checks import Check, list_of, mapping_to, text, texts

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _are_axes(value: Any) -> bool:
    return all(isinstance(one, Axes) for one in np.ravel(np.asarray(value, dtype=object)))


NAMES: Final = text | list_of(text, "a list of names", least=0) | mapping_to(text, "a mapping from name to title")
ONE_AXES: Final = Check("the axes of matplotlib to draw into", lambda value: isinstance(value, Axes))
_AXES: Final = Check("axes of matplotlib, or a list of them", _are_axes)
_CMAP: Final = Check(
    "a color map of matplotlib, or its name",
    lambda value: isinstance(value, str | Colormap),
    lambda value: isinstance(value, Colormap) or value in mpl.colormaps,
)


def checked_plot(**own: Check) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Return a decorator that checks the arguments of a plot; `own` are those that differ from `checked`."""
    return checked(**{"key_added": texts, "ax": _AXES, "cmap": _CMAP, **own})
