"""Sections to learn and test with."""

from sthisto.datasets._her2st import her2st
from sthisto.datasets._liver import liver
from sthisto.datasets.synthetic.sections import synthetic
from sthisto.io._hest import hest

__all__ = ["her2st", "hest", "liver", "synthetic"]


def __dir__() -> list[str]:
    return __all__
