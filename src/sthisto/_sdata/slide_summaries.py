"""Predictions of slides summed up over their spots: one row a slide."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import is_numeric_dtype
from spatialdata.models import TableModel

from sthisto._sdata.predictions import predicted_names, predicted_values
from sthisto._sdata.record import check_predicted, has_record, read_record
from sthisto._sdata.sections import as_cohort
from sthisto._sdata.slots import COHORT_DONE, COHORT_STATES, confidence, prediction
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed

if TYPE_CHECKING:
    from spatialdata import SpatialData

_QUANTILE: Final = "q"
_STATISTICS: Final[dict[str, Callable[[np.ndarray], np.ndarray]]] = {
    "mean": lambda values: values.mean(axis=0),
    "median": lambda values: np.median(values, axis=0),
    "sd": lambda values: values.std(axis=0),
}


@dataclass(frozen=True)
class SlideSummary:
    """One slide.

    Attributes
    ----------
    name
        Of the slide: of its store, of its region where there are several, or of both.
    genes
        What was predicted.
    values
        Statistic -> (n_genes,) its value over the spots.
    about
        Columns of ``obs`` that have one value for all spots, and "n_spots" and "confidence".
    """

    name: str
    genes: list[str]
    values: dict[str, np.ndarray]
    about: dict[str, object]


def statistic(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return what sums up (n_spots, n_genes) values to (n_genes,): "mean", "median", "sd", or "q90" for a quantile.

    Raises
    ------
    ValueError
        There is no such statistic.
    """
    if name in _STATISTICS:
        return _STATISTICS[name]
    percent = name.removeprefix(_QUANTILE)
    if name.startswith(_QUANTILE) and percent.isdigit() and int(percent) <= 100:
        return lambda values: np.quantile(values, int(percent) / 100, axis=0)
    msg = f"`how` is {name!r}; it must be one of {listed([*_STATISTICS, 'q90'])}, where q90 is the quantile at 90 %."
    raise ValueError(msg)


def stores_of(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the stores of a folder, such as `cohort.predict` writes, or those that are named.

    Slides of a cohort whose last prediction failed or is under way are left out, with a warning.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    if isinstance(paths, str | os.PathLike):
        folder = Path(paths).expanduser()
        is_store = (folder / "zarr.json").exists() or (folder / ".zgroup").exists()
        found = [folder] if is_store else [path for path in sorted(folder.glob("[!.]*.zarr")) if _is_done(path)]
    else:
        found = [Path(path).expanduser() for path in paths]
    if missing := [path for path in found if not path.exists()]:
        msg = f"There is nothing at {listed(str(path) for path in missing)}."
        raise FileNotFoundError(msg)
    if not found:
        msg = f"{paths} holds no SpatialData store. Pass the folder that sthisto.cohort.predict wrote, or stores."
        raise FileNotFoundError(msg)
    return found


def _is_done(store: Path) -> bool:
    """Return whether a store is no slide of a cohort, or one whose last prediction was done."""
    state = store.parent / COHORT_STATES / f"{store.stem}.json"
    if not state.is_file():
        return True
    known = str(json.loads(state.read_text(encoding="utf-8")).get("state"))
    if known != COHORT_DONE:
        logger.warning("%s is of an earlier prediction, its slide is %r now: it is left out.", store, known)
    return known == COHORT_DONE


def summarize_store(path: Path, how: Sequence[str], key: str, table_key: str | None) -> list[SlideSummary]:
    """Return the slides of a store, of which only the tables are read."""
    import spatialdata as sd

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The table is annotating")  # shapes, which are not read
        sdata = sd.read_zarr(path, selection=("tables",))
    try:
        return summarize_slides(sdata, how, key, table_key, store=path.stem)
    except KeyError as error:
        msg = f"{path}: {error.args[0]}"
        raise KeyError(msg) from error


def summarize_slides(
    sdata: SpatialData, how: Sequence[str], key: str, table_key: str | None, *, store: str = ""
) -> list[SlideSummary]:
    """Return a summary of each region that has a prediction.

    Parameters
    ----------
    how
        Names of statistics.
    key, table_key
        Key and table of the prediction; None is the only table that has one.
    store
        Name of the store, which names its only slide.

    Raises
    ------
    KeyError
        There is no prediction under the key.
    ValueError
        Several tables have one.
    """
    table = _predicted_table(sdata, key, table_key)
    symbols = read_record(table, key).gene_symbols
    genes = predicted_names(table, key, symbols)
    regions = list(_regions(table))
    found = []
    for region, rows in regions:
        values = predicted_values(table, key, prediction(key), genes, rows=rows, gene_symbols=symbols)
        known = np.isfinite(values).all(axis=1)
        if known.any():
            names = [store, region] if store and len(regions) > 1 else [store or region]
            summed = {name: statistic(name)(values[known].astype(np.float64)) for name in how}
            found.append(SlideSummary(":".join(names), genes, summed, _about(table, rows[known], key)))
    return found


def slides_anndata(found: Sequence[SlideSummary], how: Sequence[str]) -> AnnData:
    """Return one AnnData of slides x genes: X and a layer for each statistic.

    Raises
    ------
    ValueError
        Slides were predicted for different genes, have one name, or there are none.
    """
    if not found:
        msg = "No slide has a predicted spot. Call sth.tl.predict or sth.cohort.predict first."
        raise ValueError(msg)
    genes, names = found[0].genes, pd.Index([one.name for one in found])
    if other := [one.name for one in found if one.genes != genes]:
        msg = f"{listed(other)} were predicted for other genes than {found[0].name!r}. Use one model for all slides."
        raise ValueError(msg)
    if not names.is_unique:
        msg = f"Several slides are called {listed(names[names.duplicated()].unique())}. Rename their stores."
        raise ValueError(msg)
    layers = {name: np.stack([one.values[name] for one in found]).astype(np.float32) for name in how}
    obs = pd.DataFrame([one.about for one in found], index=names.astype(str))
    obs = obs.astype({name: "category" for name in obs if not is_numeric_dtype(obs[name])})
    return AnnData(layers[how[0]].copy(), obs=obs, var=pd.DataFrame(index=pd.Index(genes, dtype=str)), layers=layers)


def _predicted_table(sdata: SpatialData, key: str, table_key: str | None) -> AnnData:
    as_cohort([sdata])
    if table_key is not None:
        check_key(table_key, sdata.tables, name="table_key", where="the tables of the SpatialData")
    names = [table_key] if table_key else [name for name, table in sdata.tables.items() if has_record(table, key)]
    if len(names) > 1:
        msg = f"`table_key` is ambiguous: {listed(names)} hold predictions under {key!r}. Pass table_key={names[0]!r}."
        raise ValueError(msg)
    if not names:
        msg = f"No table has a prediction under key_added={key!r}; the tables: {listed(sdata.tables)}."
        raise KeyError(msg)
    check_predicted(sdata.tables[names[0]], key)
    return sdata.tables[names[0]]


def _regions(table: AnnData) -> Iterator[tuple[str, np.ndarray]]:
    attrs = table.uns[TableModel.ATTRS_KEY]
    column = table.obs[attrs[TableModel.REGION_KEY_KEY]].astype(str).to_numpy()
    regions = attrs[TableModel.REGION_KEY]
    for region in [regions] if isinstance(regions, str) else regions:
        yield str(region), np.flatnonzero(column == region)


def _about(table: AnnData, rows: np.ndarray, key: str) -> dict[str, object]:
    obs = table.obs.iloc[rows]
    about = {str(name): obs[name].iloc[0] for name in obs if len(obs[name].unique()) == 1}
    about = {name: str(value) if isinstance(value, str) else value for name, value in about.items()}
    about["n_spots"] = len(rows)
    if confidence(key) in obs:
        about["confidence"] = float(obs[confidence(key)].mean())
    return about
