"""Many slides with one model: on one machine or a cluster, going on after a crash."""

from __future__ import annotations

from sthisto.cohort._predict import predict

__all__ = ["predict"]


def __dir__() -> list[str]:
    return __all__
