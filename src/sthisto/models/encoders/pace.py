"""How long encoding will take, told once where it is long."""

from __future__ import annotations

from time import monotonic
from typing import Final

from sthisto._utils.duration import in_words
from sthisto._utils.logging import logger
from sthisto._utils.settings import settings

_OBSERVED_S: Final = 20.0
"""Seconds after which the pace is taken to be known."""
_LONG_S: Final = 600.0
"""Seconds still to go from which a warning is worth it."""


class Pace:
    """The pace at which the spots of a section are encoded.

    Parameters
    ----------
    n_spots
        Spots to encode.
    name
        The section.
    """

    def __init__(self, n_spots: int, name: str) -> None:
        self._n_spots, self._name = n_spots, name
        self._start = monotonic()
        self._told = False

    def at(self, n_done: int) -> None:
        """Warn once if the spots that are left take more than ten minutes, as far as those that are done tell."""
        seconds = monotonic() - self._start
        if self._told or seconds < _OBSERVED_S or not n_done:
            return
        left = seconds / n_done * (self._n_spots - n_done)
        if left > _LONG_S:
            self._told = True
            logger.warning(
                "Encoding the %d spots of section %r takes about %s more on this machine, at %.3g spots per second. A "
                "GPU, a smaller patch_size with input_size='patch', image_encoder='texture' or a part of the section "
                "is faster.%s",
                self._n_spots,
                self._name,
                in_words(left),
                n_done / seconds,
                " Interrupted, the same call goes on: features are kept." if settings.cache_features else "",
            )
