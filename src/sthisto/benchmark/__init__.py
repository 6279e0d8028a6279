"""What a method is worth on public sections: folds, baselines, references, intervals, and the DANet paper's tables.

`Protocol` says what is trained on what, `run` does it, `compare` averages several protocols; the command line is
``sthisto benchmark``. `leaderboard` scores predictions of other tools; on the command line, ``sthisto leaderboard``.
All scores are those of `sthisto._scoring`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "COLUMNS": "_run",
    "LEAKS": "_protocol",
    "MethodSpec": "_protocol",
    "Protocol": "_protocol",
    "compare": "_compare",
    "comparison_table": "_tables",
    "leaderboard": "_leaderboard",
    "paper_values": "_paper",
    "run": "_run",
}

__all__ = [
    "COLUMNS",
    "LEAKS",
    "MethodSpec",
    "Protocol",
    "compare",
    "comparison_table",
    "leaderboard",
    "paper_values",
    "run",
]


def __getattr__(name: str) -> Any:
    """Import on first use: the command line asks for the command alone."""
    if name not in _WHERE:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
