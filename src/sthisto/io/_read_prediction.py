"""A prediction that another tool made, from a file to an AnnData."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from sthisto._sdata.given import SECTION_COLUMNS
from sthisto._sdata.slots import GIVEN_NAME, SPATIAL
from sthisto._utils.arguments import checked
from sthisto._utils.validate import listed
from sthisto.io._reading import read_anndata

if TYPE_CHECKING:
    from anndata import AnnData

_NAMES: Final = ("spot", "spots", "spot_id", "spot_name", "barcode", "barcodes", "cell", "cell_id", "id", "index", "")
_PLACES: Final = (
    *(("x_px", "y_px"), ("x", "y"), ("pixel_x", "pixel_y"), ("pxl_col_in_fullres", "pxl_row_in_fullres")),
    ("imagecol", "imagerow"),
)
_OTHER: Final = ("x_um", "y_um", "confidence", "in_tissue", "array_row", "array_col", "split")
"""Columns of a table that hold the names of spots, the first one that is there; x and y in px of the full resolution;
and what is no gene."""
_UNNAMED: Final = "Unnamed: 0"
"""What pandas calls a first column without a name."""
_SEPARATORS: Final = {",": "commas", "\t": "tabs", ";": "semicolons", " ": "spaces"}
_TABLES: Final = (".csv", ".tsv", ".txt", ".parquet")


@checked()
def read_prediction(path: str | os.PathLike[str]) -> AnnData:
    """Read the expression that another tool predicted, for `sthisto.tl.evaluate`.

    Parameters
    ----------
    path
        File whose name ends with ".h5ad", ".parquet", ".csv" or ".tsv", the latter two also with ".gz". A table has a
        row for each spot and a column for each gene. Its first column, or one named "spot" or "barcode", names the
        spots; "x" and "y" (or "x_px" and "y_px", or Space Ranger's "pxl_col_in_fullres" and "pxl_row_in_fullres") are
        their places in px of the image's full resolution, "section" (or "library_id", "region", "sample") their
        section. `sthisto.io.to_csv` writes such a file.

    Returns
    -------
    An AnnData: X, the prediction as it stands in the file, float32 for tables; ``obs["section"]`` and
    ``obsm["spatial"]`` where the file has them; the name of the file in ``uns["sthisto_prediction"]``, by which tables
    and figures call it.

    Raises
    ------
    FileNotFoundError
        There is no file.
    ValueError
        The name of the file ends otherwise, the file is damaged, its columns are separated otherwise or repeat, or it
        has no column with numbers.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> sth.tl.predict(sdata, sth.tl.fit(sdata, method="color"))
    >>> sth.io.to_csv(sdata, "theirs.csv")
    >>> theirs = sth.io.read_prediction("theirs.csv")
    >>> sth.tl.evaluate(sdata, prediction=theirs, key_added="theirs")
    """
    source = Path(path).expanduser()
    if not source.is_file():
        msg = f"There is no file {source}. Pass an h5ad, csv, tsv or parquet file as path=…"
        raise FileNotFoundError(msg)
    plain = source.with_suffix("") if source.suffix.lower() == ".gz" else source
    ending = plain.suffix.lower()
    if ending == ".h5ad" and plain == source:
        adata = read_anndata(source)
    elif ending in _TABLES and not (ending == ".parquet" and plain != source):
        adata = _from_table(_read_table(source, ending), source.name)
    else:
        msg = f"`path` must end with '.h5ad', '.parquet', '.csv' or '.tsv', found {source.name!r}."
        raise ValueError(msg)
    adata.uns[GIVEN_NAME] = plain.stem
    return adata


def is_prediction_file(path: Path) -> bool:
    """Return whether the name of a file is one that `read_prediction` takes."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return path.is_file() and plain.suffix.lower() in (".h5ad", ".parquet", ".csv", ".tsv")


def _read_table(source: Path, ending: str) -> pd.DataFrame:
    """Return the columns of a file, its index among them where it has a name or holds text."""
    from pyarrow import ArrowException

    if ending == ".parquet":
        try:
            table = pd.read_parquet(source, engine="pyarrow")
        except (ArrowException, OSError) as error:
            msg = f"{source} is no parquet file, or damaged: {error}"
            raise ValueError(msg) from error
        return table if isinstance(table.index, pd.RangeIndex) else _with_index(table)
    separator = "," if ending == ".csv" else "\t"
    try:
        header = pd.read_csv(source, sep=separator, encoding="utf-8-sig", nrows=1, header=None, dtype=str).iloc[0]
        _check_header([str(name) for name in header.dropna()], source.name, separator)
        header = pd.read_csv(source, sep=separator, encoding="utf-8-sig", nrows=0).columns
        text = dict.fromkeys((one for one in header if _names_something(one)), str)
        table = pd.read_csv(source, sep=separator, encoding="utf-8-sig", dtype=text)
        return table if isinstance(table.index, pd.RangeIndex) else _with_names_of_r(table, source.name)
    except UnicodeDecodeError as error:
        msg = f"{source} is no text in UTF-8: {error}. Save it in UTF-8, or as .parquet."
        raise ValueError(msg) from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, OSError) as error:
        msg = f"{source} is no table, or damaged: {error}"
        raise ValueError(msg) from error


def _with_index(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table with its index as first columns: one of text names the spots, one of numbers only in default."""
    levels = table.index.to_frame(index=False)
    if levels.shape[1] > 1:
        levels.columns = ["" if name is None else str(name) for name in table.index.names]
    else:
        levels.columns = ["" if levels.iloc[:, 0].dtype.kind in "biuf" or "spot" in table else "spot"]
    kept = [name for name in levels if name not in table]
    return pd.concat([levels[kept], table.reset_index(drop=True)], axis=1)


def _with_names_of_r(table: pd.DataFrame, file: str) -> pd.DataFrame:
    """Return a table whose rows have one value more than the header has names: R writes the names of rows so.

    Raises
    ------
    ValueError
        The header names the spots, the last value is empty, or there are several more: columns would be moved.
    """
    named = [column for column in table.columns if _names_something(str(column))]
    if table.index.nlevels > 1 or named or table.iloc[:, -1].isna().all():
        n_header, n_rows = table.shape[1], table.shape[1] + table.index.nlevels
        msg = (
            f"The rows of {file} have {n_rows} values each, its header names {n_header} columns: a value would stand "
            "for the column before. Begin the file with its header, and let no line end with a separator that the "
            "header lacks."
        )
        raise ValueError(msg)
    return _with_index(table)


def _check_header(names: list[str], file: str, separator: str) -> None:
    """Raise ValueError for columns that are not separated as the file's name says, or that repeat.

    Pandas would rename a repeated column, and the first one would stand for the gene.
    """
    is_one = len(names) == 1 and not names[0].startswith("#")
    if is_one and (others := [name for mark, name in _SEPARATORS.items() if mark in names[0]]):
        msg = (
            f"The columns of {file} are not separated by {_SEPARATORS[separator]} but by {others[0]}. Save it with "
            "commas as .csv, with tabs as .tsv, or as .parquet."
        )
        raise ValueError(msg)
    counts = pd.Series(names).value_counts()
    if repeated := sorted(counts.index[counts > 1]):
        msg = f"{file} has several columns named {listed(repeated, 5)}. Keep one of each."
        raise ValueError(msg)


def _names_something(column: str) -> bool:
    """Return whether a column holds names, so that 007 is none of the numbers."""
    return column.lower() in (*_NAMES, *SECTION_COLUMNS) or column == _UNNAMED


def _from_table(table: pd.DataFrame, name: str) -> AnnData:
    import anndata as ad

    table.columns = ["" if column == _UNNAMED else str(column) for column in table.columns]
    lowered = {column.lower(): column for column in table.columns}
    names = _names_column(table)
    places = next(([lowered[one] for one in pair] for pair in _PLACES if set(pair) <= set(lowered)), [])
    section = next((lowered[one] for one in SECTION_COLUMNS if one in lowered), None)
    other = [lowered[one] for pair in _PLACES for one in pair if one in lowered]
    other += [lowered[one] for one in (*_OTHER, *SECTION_COLUMNS) if one in lowered]
    other += [column for column in table.columns if column.lower() in _NAMES]
    genes = table.drop(columns=[*{*other, *([] if names is None else [names])}])
    text = [column for column in genes if genes[column].dtype.kind not in "biuf"]
    if text or not genes.shape[1]:
        found = f"the columns {listed(text, 5)} hold something else" if text else "there is none"
        if not len(table):
            found = "it has no row"
        elif text:
            found += (
                f", such as {table[text[0]].dropna().astype(str).iloc[0]!r}" if table[text[0]].notna().any() else ""
            )
        msg = (
            f"{name} must have a column of numbers for each gene: {found}. Spots are rows; name them in a column "
            "'spot', their sections in 'section', and their places in px in 'x' and 'y'."
        )
        raise ValueError(msg)
    spots = pd.RangeIndex(len(table)).astype(str) if names is None else table[names].astype(str).str.strip()
    obs = pd.DataFrame(index=pd.Index(spots, dtype=str, name=None))
    if section is not None:
        obs["section"] = pd.Categorical(table[section].astype(str))
    obsm = {SPATIAL: table[places].to_numpy(dtype=float)} if places else {}
    var = pd.DataFrame(index=pd.Index(genes.columns, dtype=str))
    return ad.AnnData(genes.to_numpy(dtype=np.float32), obs=obs, var=var, obsm=obsm)


def _names_column(table: pd.DataFrame) -> str | None:
    """Return the column that names the spots: one that is called so, or a first one of text."""
    lowered = {column.lower(): column for column in reversed(table.columns)}
    if named := [lowered[one] for one in _NAMES if one in lowered]:
        return str(named[0])
    first = table.columns[0] if table.shape[1] else None
    known = {one for pair in _PLACES for one in pair} | {*_OTHER, *SECTION_COLUMNS}
    if first is None or first.lower() in known or table[first].dtype.kind in "biuf":
        return None
    return str(first)
