"""Spatial gene expression from H&E images, in the scverse.

Start with ``help(sthisto.tl.fit)``, or ``sthisto demo`` on the command line. Each submodule's help lists its functions:

- `tl`: fit a method, predict, evaluate, cross-validate, cluster; take SpatialData, write into its table.
- `pp`: normalize, choose genes, split, lay a grid over tissue without spots.
- `pl`: pictures of what `tl` wrote.
- `get`: plain tables of what `tl` wrote.
- `datasets`, `io`: public and synthetic sections; other layouts brought to SpatialData.
- `metrics`, `models`, `nn`: the scores, the methods and their parts; arrays in, arrays out.
- `cohort`: many slides with one model, in several processes.
- `benchmark`: methods on public sections, and the DANet paper's tables.
- `settings`: device, cache, progress bars.

Nothing heavy is imported before it is used: submodules are loaded on first access.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sthisto import benchmark, cohort, datasets, get, io, metrics, models, nn, pl, pp, tl
    from sthisto._utils.settings import settings

__all__ = [
    "__version__",
    "benchmark",
    "cohort",
    "datasets",
    "get",
    "io",
    "metrics",
    "models",
    "nn",
    "pl",
    "pp",
    "settings",
    "tl",
]

__version__ = metadata.version("sthisto")

_SUBMODULES = frozenset({"benchmark", "cohort", "datasets", "get", "io", "metrics", "models", "nn", "pl", "pp", "tl"})


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"sthisto.{name}")
    if name == "settings":
        return import_module("sthisto._utils.settings").settings
    msg = f"module 'sthisto' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return __all__
