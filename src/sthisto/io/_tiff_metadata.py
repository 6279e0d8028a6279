"""What TIFF files state of a scan: µm per px and the power of the objective."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPageSeries

_PLAUSIBLE_UM: Final = (0.05, 5.0)
"""Finer or coarser pixels than these are those of a printer, not of a scanner."""
_UM: Final = {"µm": 1.0, "um": 1.0, "micron": 1.0, "\\u00B5m": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}
_UM_OF_UNIT: Final = {2: 25_400.0, 3: 10_000.0}
_NDPI_SOURCE_LENS: Final = 65421
_NUMBER: Final = r"([0-9]+(?:[.,][0-9]+)?(?:[eE][+-]?[0-9]+)?)"
_MOST_APART: Final = 0.01
"""Share by which the height and width of a square pixel may differ."""


def um_per_px(file: TiffFile, number: int) -> float | None:
    """Return the µm per px that a file states for a series, None where it does not.

    It is read from the metadata of OME, Aperio, Philips or ImageJ, or else from the resolution tags.
    """
    series = file.series[number]
    stated = (
        _ome_um(file, series)
        or _aperio_um(series)
        or _philips_um(file)
        or _imagej_um(file, series)
        or _tagged_um(series)
    )
    return plausible_um(stated)


def objective_power(file: TiffFile, number: int) -> float | None:
    """Return the magnification of the objective that a file states for a series, such as 20; None without."""
    series = file.series[number]
    page = series.keyframe
    lens = page.tags.get(_NDPI_SOURCE_LENS) if file.is_ndpi or _NDPI_SOURCE_LENS in page.tags else None
    scn = file.scn_metadata if file.is_scn else None
    stated = (
        _find_number(rf"\bAppMag\s*=\s*{_NUMBER}", page.description)
        or (float(lens.value) if lens is not None else None)
        or _find_number(rf"<objective>\s*{_NUMBER}", scn)
        or (_find_number(rf'NominalMagnification="{_NUMBER}"', file.ome_metadata) if file.is_ome else None)
        or _find_number(rf"<Objective(?:Magnification)?>\s*{_NUMBER}", page.description)
    )
    return stated if stated is not None and stated > 0 else None


def plausible_um(um: float | None) -> float | None:
    """Return µm per px that a scanner may have, None for others, such as 353 of 72 dpi."""
    low, high = _PLAUSIBLE_UM
    return um if um is not None and low <= um <= high else None


def is_square(x: float, y: float) -> bool:
    """Return whether a pixel of these sides, neither 0, is a square."""
    return abs(x / y - 1) < _MOST_APART


def height_width(series: TiffPageSeries) -> tuple[int, int]:
    """Return rows and columns of a series, 0 for an axis that it lacks."""
    size = dict(zip(series.axes, series.shape, strict=True))
    return size.get("Y", 0), size.get("X", 0)


def ome_pixels(file: Any, series: TiffPageSeries) -> ET.Element | None:
    """Return the element Pixels of OME metadata that has the size of the series; of several, by their order."""
    if not file.is_ome or not file.ome_metadata:
        return None
    size = height_width(series)
    alike = [one for one in file.series if height_width(one) == size]
    known = [one for one in ET.fromstring(file.ome_metadata).iter() if one.tag.endswith("}Pixels")]
    known = [one for one in known if (one.get("SizeY"), one.get("SizeX")) == (str(size[0]), str(size[1]))]
    number = next((i for i, one in enumerate(alike) if one is series), 0)
    return known[number] if number < len(known) else None


def _ome_um(file: TiffFile, series: TiffPageSeries) -> float | None:
    pixels = ome_pixels(file, series)
    if pixels is None:
        return None
    x, y = (_ome_side(pixels, axis) for axis in "XY")
    return None if x is None or (y is not None and not is_square(x, y)) else x


def _ome_side(pixels: ET.Element, axis: str) -> float | None:
    """Return the width or height of a pixel in µm."""
    factor = _UM.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
    size = _find_number(_NUMBER, pixels.get(f"PhysicalSize{axis}"))
    return None if factor is None or not size else size * factor


def _aperio_um(series: TiffPageSeries) -> float | None:
    return _find_number(rf"\bMPP\s*=\s*{_NUMBER}", series.keyframe.description)


def _philips_um(file: TiffFile) -> float | None:
    if not file.is_philips:
        return None
    mm = _find_number(rf"DICOM_PIXEL_SPACING[^>]*>\s*(?:&quot;|\")?{_NUMBER}", file.philips_metadata)
    return None if mm is None else 1000 * mm


def _find_number(pattern: str, text: str | None) -> float | None:
    """Return the number that a pattern finds, written with a point or a comma."""
    found = re.search(pattern, text or "")
    return float(found.group(1).replace(",", ".")) if found else None


def _imagej_um(file: TiffFile, series: TiffPageSeries) -> float | None:
    unit = str((file.imagej_metadata or {}).get("unit", "")) if file.is_imagej else ""
    per_unit = _resolution(series)
    return _UM[unit] / per_unit if unit in _UM and per_unit else None


def _tagged_um(series: TiffPageSeries) -> float | None:
    unit, per_unit = series.keyframe.tags.get("ResolutionUnit"), _resolution(series)
    um = _UM_OF_UNIT.get(int(unit.value)) if unit is not None else _UM_OF_UNIT[2]
    return um / per_unit if um and per_unit else None


def _resolution(series: TiffPageSeries) -> float | None:
    """Return px per unit, None where it is not stated or differs between x and y."""
    values = [series.keyframe.tags.get(name) for name in ("XResolution", "YResolution")]
    ratios = [one.value[0] / one.value[1] for one in values if one is not None and one.value[1]]
    return ratios[0] if len(ratios) == 2 and min(ratios) > 0 and is_square(*ratios) else None
