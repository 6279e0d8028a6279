"""Figures as pictures within a page, each within its share of the page's size."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Final

import matplotlib.pyplot as plt
from PIL import Image

from sthisto.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_BYTES: Final = 3_400_000
"""Encoded pictures of one page; in base64 they are a third larger, and the page stays below 5 MB."""
_MOST_OF_ONE: Final = 300_000
_DPI: Final = 144
_QUALITIES: Final = (86, 74, 60)
_SMALLER: Final = 0.75
_CSS_DPI: Final = 96


def share_of(n_pictures: int) -> int:
    """Return the bytes that each of some pictures may take."""
    return min(_MOST_OF_ONE, MOST_BYTES // max(n_pictures, 1))


def encode(figure: Figure, *, alt: str, caption: str, most_bytes: int) -> Picture:
    """Close a figure and return it as a picture of at most so many bytes: with less quality, then with fewer pixels.

    Parameters
    ----------
    most_bytes
        Size of the encoded picture.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI, facecolor="white")
    width = round(figure.get_figwidth() * _CSS_DPI)
    plt.close(figure)
    with Image.open(drawn) as opened:
        image = opened.convert("RGB")
    while True:
        for quality in _QUALITIES:
            encoded = io.BytesIO()
            image.save(encoded, format="WEBP", quality=quality, method=4)
            if encoded.tell() <= most_bytes:
                source = base64.b64encode(encoded.getvalue()).decode("ascii")
                return Picture(f"data:image/webp;base64,{source}", alt, caption, width)
        if min(image.size) < 2:
            msg = f"A picture can't be encoded in {most_bytes} bytes. Report fewer sections."
            raise ValueError(msg)
        image = image.resize([max(int(side * _SMALLER), 1) for side in image.size], Image.Resampling.LANCZOS)
