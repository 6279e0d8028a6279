"""The image of each library: named in `uns`, in a file, or given as pixels; one that several share is read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from sthisto._sdata.columns import as_text
from sthisto._utils.validate import check_key, listed
from sthisto.io._arrays import TAKEN, rgb_of_array
from sthisto.io._image import Picture, read_picture
from sthisto.io._libraries import Library, check_array_positions

if TYPE_CHECKING:
    import pandas as pd

Image: TypeAlias = "str | Path | np.ndarray | Any"


class Pictures:
    """The images of the libraries; one that several share is read once."""

    def __init__(self, image: Image | Mapping[Any, Image]) -> None:
        given = image if isinstance(image, Mapping) else None
        self._given = None if given is None else {as_text(name): one for name, one in given.items()}
        self._image = image
        self._read: dict[str | int, Picture] = {}

    @property
    def named(self) -> list[str]:
        """The libraries that an image was given for by name."""
        return list(self._given or ())

    def check_complete(self, libraries: Sequence[Library]) -> None:
        """Raise KeyError where images are given by name, but not for all libraries."""
        for library in libraries:
            if self._given is not None and library.name not in self._given:
                msg = f"`image` has no entry for library {library.name!r}. It has: {listed(self._given)}."
                raise KeyError(msg)

    def _source(self, library: Library) -> Any:
        return self._image if self._given is None else self._given[library.name]

    def name_of(self, library: Library) -> str:
        """Return the name in `uns` of the image that a library has, "" for one that was given."""
        source = self._source(library)
        is_named = isinstance(source, str) and (source in library.images or source in ("hires", "lowres"))
        return str(source) if is_named else ""

    def of(self, library: Library) -> tuple[Picture, float | None]:
        """Return a library's image, and its px per px of the full resolution; None for the full resolution itself."""
        source = self._source(library)
        if self.name_of(library):
            return _named(library, source)
        if source is None or isinstance(source, bytes | bytearray | Mapping):
            msg = f"`image` is of {type(source).__name__}; it takes {TAKEN}."
            raise TypeError(msg)
        key = str(source) if isinstance(source, str | Path) else id(source)
        if key not in self._read:
            self._read[key] = read_picture(source, known=f", which has: {listed(library.images)}")
        return self._read[key], None

    def check_shared(self, obs: pd.DataFrame, xy: np.ndarray, libraries: Sequence[Library]) -> None:
        """Refuse one image for libraries that overlap on it, by `xy`, (n_obs, 2), and repeat array positions."""
        unknown = libraries if self._given is None and self._read else []
        boxes = [(np.nanmin(xy[one.rows], axis=0), np.nanmax(xy[one.rows], axis=0)) for one in unknown]
        for i, (low, high) in enumerate(boxes):
            for j in range(i):
                if (low <= boxes[j][1]).all() and (high >= boxes[j][0]).all():
                    rows = np.concatenate([unknown[i].rows, unknown[j].rows])
                    check_array_positions(obs.iloc[rows], f"libraries {unknown[j].name!r} and {unknown[i].name!r}")


def _named(library: Library, name: str) -> tuple[Picture, float | None]:
    """Return an image of `uns` and its scale factor; one without a factor that is called "fullres" has none."""
    check_key(
        name,
        library.images,
        name="image",
        where=f"the images of library {library.name!r}",
        remedy="Pass image=…, the path of the full-resolution image.",
    )
    factor = library.number(f"tissue_{name}_scalef")
    pixels = rgb_of_array(library.images[name])
    if factor is None and "full" in name.lower():
        return Picture(pixels), None
    if factor is None:
        msg = (
            f"Library {library.name!r} has no scale factor 'tissue_{name}_scalef' for its image {name!r}. It has: "
            f"{listed(library.scalefactors)}. Add it to uns, or pass image=…, the path of the full-resolution image."
        )
        raise KeyError(msg)
    return Picture(pixels), factor
