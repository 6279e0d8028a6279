"""Quality of the image around each spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sthisto._images.quality import WIDTH_UM, check_square, measure_quality
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.quality import quality_updates
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.write import apply
from sthisto._utils.arguments import checked
from sthisto._utils.logging import logger

if TYPE_CHECKING:
    from spatialdata import SpatialData

    from sthisto._images.quality import Quality


@checked()
def quality(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    min_quality: float | None = None,
    width_um: float = WIDTH_UM,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
) -> None:
    """Judge the image around each spot: blur, marker, folds and background, from its pixels alone.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    min_quality
        Least quality of a usable spot, 0 to 1; 0.5 is a good start. Spots below it are left out by all functions, as
        those off tissue are: they are not fitted on, not predicted and not scored. None: all spots are usable.
    width_um
        Width in µm of the square that is judged around each spot.
    image_key
        H&E image, or a mapping from region to image. None: inferred if there is exactly one candidate; of several RGB
        images of one place, the finest.
    shapes_key
        Region or regions to use, shapes or labels. None: all regions that the table annotates.
    table_key
        Table that annotates the regions. None: inferred if there is exactly one.
    coordinate_system
        Coordinate system in which images and regions are aligned. None: inferred from those that both share.
    um_per_px
        µm per px of the images' full resolution, or a mapping from region to it. None: taken from the data where it is
        known.

    Returns
    -------
    None. Writes to ``obs``, float32 between 0 and 1:

    - ``"sthisto_blur"``: 0 is sharp, 0.5 a Gaussian blur with a σ of about 1 µm, 0.9 one of 2 µm. It is measured at
      1.6 µm per px; of an image that is coarser, at its own resolution, where it tells blur of a px or more.
    - ``"sthisto_pen"``: share of the square that is blue, green, black or red marker.
    - ``"sthisto_fold"``: share of the square that lies under folded tissue, at least 25 µm wide.
    - ``"sthisto_tissue"``: share of the square that is tissue.
    - ``"sthisto_quality"``: one minus the largest of blur, marker and fold.
    - ``"sthisto_usable"`` with `min_quality`: 1 or 0. Without it, such a column of an earlier call is removed.

    Raises
    ------
    KeyError
        An element is missing.
    ValueError
        An element is ambiguous; the µm per px of a section are unknown; or `width_um` is narrower than three px, or
        wider than the image.

    Notes
    -----
    The thresholds are fixed, not fitted: how well they tell planted faults is printed by
    ``python benchmarks/quality.py``. Dense tissue, such as lymph follicles, can look like a fold, and bleeding like red
    marker.

    References
    ----------
    Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy: a comparative study, ICPR 2000,
    doi:10.1109/ICPR.2000.903548 (variance of the Laplacian).

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic(n_sections=1, n_patients=1)
    >>> sth.pp.quality(sdata)
    >>> bool((sdata["expression"].obs["sthisto_blur"] < 0.5).all())
    True
    """
    keys = ElementKeys(image_key, shapes_key, table_key, coordinate_system, um_per_px)
    sections = read_sections(sdata, keys, with_unusable=True)
    for section in sections:
        _check(section, width_um)
    found = [_measure(section, width_um) for section in sections]
    for section, one in zip(sections, found, strict=True):
        _report(section, one, min_quality)
    apply(quality_updates(sections, found, min_quality))


def _check(section: Section, width_um: float) -> None:
    if section.um_per_px is None:
        msg = (
            f"The µm per px of section {section.name!r} are unknown, and blur and marker are measured in µm. Pass "
            "um_per_px=…"
        )
        raise ValueError(msg)
    check_square(section.image, section.um_per_px, width_um, name=section.image_key)


def _measure(section: Section, width_um: float) -> Quality:
    assert section.um_per_px is not None  # `_check` saw to it
    return measure_quality(section.image, section.centers, section.um_per_px, width_um)


def _report(section: Section, found: Quality, min_quality: float | None) -> None:
    least = 0.5 if min_quality is None else min_quality
    poor = int((found.worst < least).sum())
    if poor:
        logger.warning(
            "%d of %d spots of section %r have a quality below %g (blurred: %d, marker: %d, folded: %d).",
            poor,
            len(section),
            section.name,
            least,
            *(int((1 - values < least).sum()) for values in (found.blur, found.pen, found.fold)),
        )
