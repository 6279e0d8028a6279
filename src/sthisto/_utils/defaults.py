"""Defaults that several functions and the command line share."""

from __future__ import annotations

from typing import Final

PATCH_SIZE: Final = 224
"""Width of a patch in px."""

IMAGE_ENCODER: Final = "densenet121"
"""Name of the image encoder: DANet's."""
