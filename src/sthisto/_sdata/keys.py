"""The arguments of the public functions that say which elements of a SpatialData are used, as one value."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar

from sthisto._utils.validate import check_key

Value = TypeVar("Value")


@dataclass(frozen=True)
class ElementKeys:
    """Which elements make up the sections; None is inferred where there is exactly one candidate.

    Attributes
    ----------
    image_key
        The H&E image, or a mapping from region to image.
    shapes_key
        Region or regions to use, shapes or labels; None is all that the table annotates.
    table_key
        The table that annotates them.
    coordinate_system
        The coordinate system in which image and regions are aligned.
    um_per_px
        µm per px of the images' full resolution, or a mapping from region to it; None takes it from the data where it
        is known.
    """

    image_key: str | Mapping[str, str] | None = None
    shapes_key: str | Sequence[str] | None = None
    table_key: str | None = None
    coordinate_system: str | None = None
    um_per_px: float | Mapping[str, float] | None = None

    def check_regions(self, regions: Collection[str]) -> None:
        """Raise KeyError for a mapping that names something else than one of `regions`."""
        for name, value in vars(self).items():
            for region in value if isinstance(value, Mapping) else ():
                remedy = f"Leave it out of the mapping {name}, or choose regions with shapes_key=…"
                check_key(region, regions, name=name, where="the regions", remedy=remedy)

    def image_of(self, region: str) -> str | None:
        """Return the image of a region, None where it is not named."""
        return _of_region(self.image_key, region)

    def um_per_px_of(self, region: str) -> float | None:
        """Return the µm per px of a region's image, None where they are not stated."""
        return _of_region(self.um_per_px, region)

    def for_regions(self, regions: Collection[str]) -> ElementKeys:
        """Return the keys of a SpatialData that has some of the regions, all of which are used."""
        kept: dict[str, Any] = {
            name: {region: one for region, one in value.items() if region in regions}
            for name, value in vars(self).items()
            if isinstance(value, Mapping)
        }
        return replace(self, **kept, shapes_key=None)

    def arguments(self) -> dict[str, Any]:
        """Return the keys as arguments of a public function."""
        return dict(vars(self))


ELEMENT_KEYS: Final = tuple(field.name for field in fields(ElementKeys))


def _of_region(value: Value | Mapping[str, Value] | None, region: str) -> Value | None:
    return value.get(region) if isinstance(value, Mapping) else value
