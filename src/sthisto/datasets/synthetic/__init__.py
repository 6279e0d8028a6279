"""Synthetic sections: tissue that is drawn with the expression of what was drawn."""

from sthisto.datasets.synthetic.sections import synthetic

__all__ = ["synthetic"]
