"""What a passport says of a gene."""

from __future__ import annotations

from typing import Final

USE: Final = "use"
PATTERN_ONLY: Final = "pattern only"
DO_NOT_USE: Final = "do not use"
VERDICTS: Final = (USE, PATTERN_ONLY, DO_NOT_USE)
ALL: Final = "all"
"""Every gene of a model, whatever the verdict."""
NOT_ASSESSED: Final = "not assessed"
"""Verdict on a gene of a model without passport."""
