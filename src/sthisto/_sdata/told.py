"""What a SpatialData says of itself: its `attrs["sthisto"]`, and which spots a table annotates. Checked here, once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spatialdata.models import TableModel

from sthisto._sdata.slots import ALLOW_OUTSIDE, CHECK_IMAGE, KEY, UM_PER_UNIT
from sthisto._utils.checks import flag, shown
from sthisto._utils.validate import check_positive, listed

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

_ATTRS = f"sdata.attrs[{KEY!r}]"


def told(sdata: SpatialData) -> Mapping[str, Any]:
    """Return `sdata.attrs["sthisto"]`, empty where there is none.

    Raises
    ------
    TypeError
        It is no mapping.
    """
    found = sdata.attrs.get(KEY, {})
    if not isinstance(found, Mapping):
        msg = f"{_ATTRS} must be a mapping, found {shown(found)}. Delete it, or write it anew."
        raise TypeError(msg)
    return found


def um_per_unit(sdata: SpatialData) -> dict[str, float]:
    """Return the µm per unit of every coordinate system whose unit is known.

    Raises
    ------
    TypeError, ValueError
        `sdata.attrs["sthisto"]["um_per_unit"]` is no mapping from coordinate system to a positive number.
    """
    known = told(sdata).get(UM_PER_UNIT, {})
    where = f"{_ATTRS}[{UM_PER_UNIT!r}]"
    if not isinstance(known, Mapping):
        msg = f"{where} must be a mapping from coordinate system to µm per unit, found {shown(known)}. Write it anew."
        raise TypeError(msg)
    for system, um in known.items():
        check_positive(um, name=f"{where}[{system!r}]")
    return {str(system): float(um) for system, um in known.items()}


def allows_outside(sdata: SpatialData) -> bool:
    """Return whether more than a tenth of a region's spots may lie outside its image."""
    return _flag(sdata, ALLOW_OUTSIDE, default=False)


def checks_image(sdata: SpatialData) -> bool:
    """Return whether an image that does not fit the overviews of its run is refused."""
    return _flag(sdata, CHECK_IMAGE, default=True)


def _flag(sdata: SpatialData, name: str, *, default: bool) -> bool:
    value = told(sdata).get(name, default)
    if not flag.is_type(value):
        msg = f"{_ATTRS}[{name!r}] must be True or False, found {shown(value)}. Write it anew."
        raise TypeError(msg)
    return bool(value)


def annotated_regions(table: AnnData, table_key: str) -> list[str]:
    """Return the regions that a table annotates, after checking that it can be read as SpatialData says.

    Raises
    ------
    ValueError
        What ties its rows to elements is missing or of another form.
    KeyError
        A column that it names is not in `obs`.
    """
    attrs = table.uns[TableModel.ATTRS_KEY]
    where = f"uns[{TableModel.ATTRS_KEY!r}] of table {table_key!r}"
    remedy = "Parse the table anew with spatialdata.models.TableModel.parse."
    keys = (TableModel.REGION_KEY, TableModel.REGION_KEY_KEY, TableModel.INSTANCE_KEY)
    if not isinstance(attrs, Mapping) or any(attrs.get(key) is None for key in keys):
        msg = f"{where} must hold {listed(keys)}, found {shown(attrs)}. {remedy}"
        raise ValueError(msg)
    for key in (TableModel.REGION_KEY_KEY, TableModel.INSTANCE_KEY):
        if attrs[key] not in table.obs:
            msg = (
                f"{where} names obs[{attrs[key]!r}] as {key}, which is not there; the columns of obs: "
                f"{listed(table.obs.columns)}. {remedy}"
            )
            raise KeyError(msg)
    regions = attrs[TableModel.REGION_KEY]
    names = [regions] if isinstance(regions, str) else list(regions)
    if not names or not all(isinstance(name, str) for name in names):
        msg = f"{where} must name its regions, found {shown(regions)}. {remedy}"
        raise ValueError(msg)
    return names
