"""From SpatialData to sections: which elements belong together, and which rows of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import spatialdata as sd
from anndata import AnnData
from spatialdata.models import TableModel

from sthisto._images.patches import PatchSource, PatchSpec
from sthisto._images.pyramid import Pyramid
from sthisto._sdata.elements import apply_affine, read_pyramid, read_spots, scale
from sthisto._sdata.image_scale import known_um_per_px, stated_um_per_px
from sthisto._sdata.inside import inside_image, warn_left_out
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.levels import check_level
from sthisto._sdata.overviews import check_overviews
from sthisto._sdata.pairing import match_rows, pair_image
from sthisto._sdata.resolution import um_per_px_of_visium, um_per_unit_of_xenium
from sthisto._sdata.stored import check_stored
from sthisto._sdata.told import allows_outside, annotated_regions, checks_image, um_per_unit
from sthisto._utils.logging import logger, warn_once
from sthisto._utils.validate import check_key, listed, resolve_only

if TYPE_CHECKING:
    from spatialdata import SpatialData


_MOST_ENLARGED = 2.5
_WIDEST_PATCH_PX = 4096
_FINE_UM = 1.0
"""µm per px of a 10x objective; images of larger pixels are called coarse."""
_NO_CELLS_UM = 2.5
"""µm per px above which a cell is fewer than four px wide."""


@dataclass(frozen=True)
class Section:
    """One tissue section: its image, its spots in pixels of that image, and their rows in the table.

    Attributes
    ----------
    name
        The region's name; where it repeats in a list of SpatialData, their number stands before it: "0:A", "1:A".
    rows
        (n_spots,) rows of `table` that belong to the section, lie on tissue and inside the image, and are usable.
    centers
        (n_spots, 2) x and y of the spots in px of the full resolution; pixel i covers [i, i + 1).
    diameter
        Width of a spot in px of the full resolution, the median where spots differ; of polygons and labels, that of
        the circle of the same area.
    um_per_px
        µm per px of the full resolution, None where unknown.
    """

    name: str
    region: str
    image_key: str
    coordinate_system: str
    table_key: str
    table: AnnData
    image: Pyramid
    rows: np.ndarray
    centers: np.ndarray
    diameter: float
    um_per_px: float | None

    def __len__(self) -> int:
        return len(self.rows)

    def patches(self, spec: PatchSpec) -> tuple[PatchSource, ...]:
        """Return the section's patches, one source for each width of `spec.context`.

        Each width is read from the coarsest level of the pyramid that is fine enough for it.

        Raises
        ------
        ValueError
            A patch is far wider than the image, and than a patch that could be read; or the level that is read shows
            something else than the full resolution.
        """
        um = "unknown" if self.um_per_px is None else f"{self.um_per_px:.3g}"
        logger.info("Section %r: %d spots, image %r, µm per px: %s.", self.name, len(self), self.image_key, um)
        full_px = spec.um_per_px / self.um_per_px if spec.um_per_px and self.um_per_px else 1.0
        if spec.um_per_px and not self.um_per_px:
            logger.warning(
                "The µm per px of section %r are unknown, so its patches are cut in px, not resampled to the "
                "%.3g µm per px that the model was fitted on. Pass um_per_px=… to state them.",
                self.name,
                spec.um_per_px,
            )
        elif self.um_per_px and not spec.um_per_px:
            logger.warning(
                "The µm per px of the patches are unknown, so those of section %r are cut in px of its own, of "
                "%.3g µm each.",
                self.name,
                self.um_per_px,
            )
        self._warn_if_enlarged(spec, 1 / (full_px * min(spec.context)))
        return tuple(self._patches(spec.size, full_px * width) for width in spec.context)

    def _warn_if_enlarged(self, spec: PatchSpec, enlarged: float) -> None:
        """Warn of patches that show few px, because the image is coarse or because they cover little tissue."""
        if enlarged <= _MOST_ENLARGED:
            if self.um_per_px is not None and self.um_per_px > _NO_CELLS_UM:
                warn_once(
                    "Image %r is coarse: %.3g µm per px, too few px to see cells in. Pass the full-resolution image "
                    "with image_key=…, if there is one.",
                    self.image_key,
                    self.um_per_px,
                )
            return
        um = "unknown" if self.um_per_px is None else f"{self.um_per_px:.3g}"
        if self.um_per_px is not None and self.um_per_px <= _FINE_UM:
            warn_once(
                "Patches of section %r are enlarged %.1f times: their %d px show %.0f px of image %r, of %s µm each. "
                "Fit on patches of fewer px (patch_size=…) or of more tissue (patch_um=…).",
                *(self.name, enlarged, spec.size, spec.size / enlarged, self.image_key, um),
            )
        else:
            warn_once(
                "Patches of section %r are enlarged %.1f times, because image %r is coarse: %s µm per px. Pass the "
                "full-resolution image with image_key=…, if there is one, or fit on wider patches (patch_um=…).",
                *(self.name, enlarged, self.image_key, um),
            )

    def _patches(self, size: int, full_px: float) -> PatchSource:
        level = self.image.level_for(full_px)
        extent = size * full_px / level.downsample
        if extent > max(_WIDEST_PATCH_PX, 2 * level.width, 2 * level.height):
            um = "unknown" if self.um_per_px is None else f"{self.um_per_px:.3g}"
            msg = (
                f"A patch of section {self.name!r} would be {size * full_px:,.0f} px wide, but image "
                f"{self.image_key!r} has {self.image.width} x {self.image.height} px, of {um} µm each. Correct "
                "um_per_px=… or patch_um=…"
            )
            raise ValueError(msg)
        source = PatchSource(level, level.locate(self.centers), extent=extent, size=size)
        check_stored(source, self.image_key, self.region)
        check_level(source, self.image, self.centers, self.image_key)
        return source


def read_sections(
    sdata: SpatialData | Sequence[SpatialData],
    keys: ElementKeys | None = None,
    *,
    check_image: bool | None = None,
    allow_outside: bool | None = None,
    with_unusable: bool = False,
) -> list[Section]:
    """Find the sections of one SpatialData or of a cohort; of the images, only a small probe is read.

    Parameters
    ----------
    sdata
        One SpatialData, whose table may annotate several regions, or a sequence of them.
    keys
        Which elements to use; None infers all of them.
    check_image
        Whether an image that does not fit the overviews of its run is refused, not only warned of. None is
        ``sdata.attrs["sthisto"]["check_image"]``, or True.
    allow_outside
        Whether more than a tenth of a region's spots may lie outside its image. None is
        ``sdata.attrs["sthisto"]["allow_outside"]``, or False.
    with_unusable
        Whether spots that `pp.quality` found not usable belong to the sections too.

    Raises
    ------
    KeyError
        A key is missing, or nothing is a candidate for it.
    ValueError
        Something is ambiguous, an image is no RGB image or is not the one that the run was made with, its pixels are
        not square, more than a tenth of a region's spots lie outside its image, or none is left in any region.
    """
    cohort = as_cohort(sdata)
    keys = keys or ElementKeys()
    tables = [resolve_table(one, keys.table_key) for one in cohort]
    annotated = [annotated_regions(one.tables[name], name) for one, name in zip(cohort, tables, strict=True)]
    chosen = _regions(annotated, keys.shapes_key, cohort, tables)
    every_region = [region for regions in chosen for region in regions]
    keys.check_regions(every_region)
    sections: list[tuple[int, Section]] = []
    for i, one in enumerate(cohort):
        for region in chosen[i]:
            section = _read_section(
                one,
                tables[i],
                region,
                keys,
                check_image=checks_image(one) if check_image is None else check_image,
                allow_outside=allows_outside(one) if allow_outside is None else allow_outside,
                with_unusable=with_unusable,
            )
            if len(section):
                sections.append((i, section))
            else:
                logger.warning("Region %r has no spot on tissue: it is left out.", region)
    if not sections:
        msg = f"No spot is left in any of the regions {listed(every_region)}: nothing to work on."
        raise ValueError(msg)
    return _with_unique_names(sections)


def as_cohort(sdata: SpatialData | Sequence[SpatialData]) -> list[SpatialData]:
    """Return a list, whether one SpatialData is given or several."""
    is_sequence = isinstance(sdata, Iterable) and not isinstance(sdata, str | bytes)
    cohort: list[Any] = list(sdata) if is_sequence and not isinstance(sdata, sd.SpatialData) else [sdata]
    if not cohort:
        msg = "The list of SpatialData is empty."
        raise ValueError(msg)
    for one in cohort:
        if not isinstance(one, sd.SpatialData):
            msg = f"`sdata` must be a SpatialData or a sequence of them, found {type(one).__name__}. {_remedy(one)}"
            raise TypeError(msg)
    if len({id(one) for one in cohort}) < len(cohort):
        msg = "The same SpatialData stands in the list more than once; its spots would count twice."
        raise ValueError(msg)
    return cohort


def _remedy(value: Any) -> str:
    """Return how to get a SpatialData from what was passed instead of one."""
    if isinstance(value, AnnData):
        return "Read its store with spatialdata.read_zarr, or convert it with sthisto.io.from_anndata(adata, image)."
    if isinstance(value, str | Path):
        return f"Read the store with spatialdata.read_zarr({str(value)!r}), or a run's folder with sthisto.io.read."
    return "Pass what spatialdata.read_zarr or sthisto.io.read returned."


def resolve_table(sdata: SpatialData, table_key: str | None) -> str:
    """Return `table_key`, or the only table that annotates a region."""
    annotating = [name for name, table in sdata.tables.items() if TableModel.ATTRS_KEY in table.uns]
    name: str = resolve_only(table_key, annotating, name="table_key", where="the tables that annotate a region")
    annotated_regions(sdata.tables[name], name)
    return name


def read_tables(sdata: SpatialData | Sequence[SpatialData], table_key: str | None = None) -> list[AnnData]:
    """Return the table of each SpatialData: `table_key`, or the only one that annotates a region."""
    return [one.tables[resolve_table(one, table_key)] for one in as_cohort(sdata)]


def _regions(
    annotated: list[list[str]], shapes_key: str | Sequence[str] | None, cohort: list[SpatialData], tables: list[str]
) -> list[list[str]]:
    """Return the wanted regions of each table."""
    if shapes_key is None:
        return annotated
    wanted = [shapes_key] if isinstance(shapes_key, str) else list(dict.fromkeys(shapes_key))
    known = list(dict.fromkeys(region for regions in annotated for region in regions))
    for region in wanted:
        remedy = _how_to_annotate(region, cohort, tables) if region not in known else ""
        check_key(region, known, name="shapes_key", where="the regions that the table annotates", remedy=remedy)
    return [[region for region in wanted if region in regions] for regions in annotated]


def _how_to_annotate(region: str, cohort: list[SpatialData], tables: list[str]) -> str:
    """Return how a table is made to annotate shapes or labels that are there, "" for a name that is not."""
    for one, name in zip(cohort, tables, strict=True):
        if region in one.shapes or region in one.labels:
            attrs = one.tables[name].uns[TableModel.ATTRS_KEY]
            region_key, instance_key = attrs[TableModel.REGION_KEY_KEY], attrs[TableModel.INSTANCE_KEY]
            return (
                f"To let the table annotate {region!r}, whose index must hold obs[{instance_key!r}]: "
                f"sdata[{name!r}].obs[{region_key!r}] = pd.Categorical([{region!r}] * sdata[{name!r}].n_obs); "
                f"sdata.set_table_annotates_spatialelement({name!r}, region={region!r})."
            )
    return ""


def _read_section(
    sdata: SpatialData,
    table_key: str,
    region: str,
    keys: ElementKeys,
    *,
    check_image: bool,
    allow_outside: bool,
    with_unusable: bool,
) -> Section:
    if region not in sdata:
        msg = (
            f"Table {table_key!r} annotates {region!r}, which is not among the elements of the SpatialData. Pass "
            "shapes_key=… to use other regions."
        )
        raise KeyError(msg)
    table = sdata.tables[table_key]
    image_key, systems = pair_image(sdata, region, keys.image_of(region), keys.coordinate_system)
    um_per_px = keys.um_per_px_of(region)
    system = next((name for name in systems if name in um_per_unit(sdata)), systems[0])
    image, to_system = read_pyramid(sdata[image_key], image_key, system)
    spots = read_spots(sdata[region], region, system)
    rows, position = match_rows(table, region, spots.instances, with_unusable=with_unusable)
    has_place = np.isfinite(spots.xy[position]).all(axis=1)
    warn_left_out(~has_place, region, "have no place: their geometry is empty, missing or not finite")
    rows, position = rows[has_place], position[has_place]
    to_pixels = np.linalg.inv(to_system)
    centers = apply_affine(to_pixels, spots.xy[position])
    check_overviews(sdata, image_key, systems, refuse=check_image)
    inside = inside_image(centers, image, region=region, image_key=image_key, allow_outside=allow_outside)
    rows, centers, diameters = rows[inside], centers[inside], spots.diameters[position[inside]]
    known = um_per_px_of_visium(table.obs.iloc[rows], centers, region)
    if unit := um_per_unit_of_xenium(table.obs.iloc[rows], spots.areas[position[inside]]):
        known = unit * scale(to_system)
    if of_system := known_um_per_px(sdata, image_key):
        known = of_system if um_per_px is not None else stated_um_per_px(of_system, known, region)
    return Section(
        name=region,
        region=region,
        image_key=image_key,
        coordinate_system=system,
        table_key=table_key,
        table=table,
        image=image,
        rows=rows,
        centers=centers,
        diameter=_median(diameters) * scale(to_pixels),
        um_per_px=known if um_per_px is None else stated_um_per_px(um_per_px, known, region),
    )


def _median(diameters: np.ndarray) -> float:
    known = diameters[np.isfinite(diameters)]
    return float(np.median(known)) if len(known) else float("nan")


def _with_unique_names(sections: Sequence[tuple[int, Section]]) -> list[Section]:
    """Put the number of the SpatialData before names that repeat."""
    count = Counter(section.name for _, section in sections)
    return [
        replace(section, name=f"{i}:{section.name}") if count[section.name] > 1 else section for i, section in sections
    ]
