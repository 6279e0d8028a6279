"""The passport of a model: what was predicted of each gene on held-out groups, as a table that is saved with it."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from sthisto._utils.digest import digest_names
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_key, listed
from sthisto._utils.verdicts import ALL, NOT_ASSESSED, PATTERN_ONLY, USE, VERDICTS

if TYPE_CHECKING:
    from sthisto.models.base import ExpressionModel

TEXTS: Final = ("gene", "verdict", "groups")
NUMBERS: Final = (
    "pcc_residual", "pcc_residual_low", "pcc_residual_high", "gain", "gain_low", "pcc", "depth", "color", "ridge",
    "sibling", "reproducibility",
)  # fmt: skip
COLUMNS: Final = ("gene", "verdict", *NUMBERS, "n_groups", "groups")
"""Columns of a passport; `sthisto.tl.assess` describes them."""

_CORRELATIONS: Final = ("pcc_residual", "pcc", "depth", "color", "ridge")
_ROUNDING: Final = 1e-6

FILE: Final = "passport.parquet"
_LARGEST_FILE: Final = 256 * 2**20


def check_passport(table: pd.DataFrame, genes: Sequence[str], *, name: str) -> pd.DataFrame:
    """Return a passport with its columns in order.

    Parameters
    ----------
    table
        One row per gene.
    genes
        The model's genes, in order.
    name
        What the message calls it.

    Raises
    ------
    ValueError
        Columns are missing, the genes are others, a verdict is unknown, or a score is no number.
    """
    if missing := [column for column in COLUMNS if column not in table]:
        msg = f"{name} has no column {missing[0]!r}; expected {listed(COLUMNS, len(COLUMNS))}. Call sth.tl.assess."
        raise ValueError(msg)
    if table["gene"].tolist() != list(genes):
        msg = f"{name} is of other genes than the model, or in another order. Call sth.tl.assess."
        raise ValueError(msg)
    if unknown := sorted(set(table["verdict"].astype(str)) - set(VERDICTS)):
        msg = f"{name} holds the verdicts {listed(unknown)}; expected {listed(VERDICTS)}. Call sth.tl.assess."
        raise ValueError(msg)
    if texts := [column for column in (*NUMBERS, "n_groups") if table[column].dtype.kind not in "iuf"]:
        msg = f"{name}: the column {texts[0]!r} holds no numbers. Call sth.tl.assess."
        raise ValueError(msg)
    scores = table[list(_CORRELATIONS)].to_numpy(dtype=float)
    known = {
        USE: (table["pcc_residual_low"] > 0) & (table["gain_low"] > 0),
        PATTERN_ONLY: table["pcc_residual_low"] > 0,
    }
    if (np.abs(scores) > 1 + _ROUNDING).any() or (table["n_groups"] < 0).any():
        msg = f"{name} holds scores that are no correlations, or a negative n_groups. Call sth.tl.assess."
        raise ValueError(msg)
    if any((~rule[table["verdict"] == verdict]).any() for verdict, rule in known.items()):
        msg = f"{name} holds verdicts that do not follow from pcc_residual_low and gain_low. Call sth.tl.assess."
        raise ValueError(msg)
    kinds = dict.fromkeys(TEXTS, object) | dict.fromkeys(NUMBERS, np.float64) | {"n_groups": np.int64}
    return table[list(COLUMNS)].astype(kinds).reset_index(drop=True)


def passport_file(table: pd.DataFrame, *, fit: str) -> bytes:
    """Return a passport as a parquet file that names the genes and the fit that it belongs to.

    Parameters
    ----------
    table
        The passport.
    fit
        Digest of the model's tensors, as its configuration holds it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {"genes": digest_names(table["gene"]), "fit": fit}
    content = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(metadata), content)
    return content.getvalue()


def read_passport(file: Path, genes: Sequence[str], *, fit: str) -> pd.DataFrame:
    """Return a passport after checking that it is of these genes and of this fit.

    Raises
    ------
    ValueError
        The file is damaged, or belongs to another model.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    remedy = "Copy the model again, or call sth.tl.assess."
    if file.stat().st_size > _LARGEST_FILE:
        msg = f"{file} is damaged: it has {file.stat().st_size} bytes, more than {_LARGEST_FILE}. {remedy}"
        raise ValueError(msg)
    try:
        stored = pq.read_table(file, memory_map=False)
    except (pa.ArrowException, OSError) as error:
        msg = f"{file} is damaged ({error}). {remedy}"
        raise ValueError(msg) from error
    metadata = stored.schema.metadata or {}
    if metadata.get(b"fit") != fit.encode() or metadata.get(b"genes") != digest_names(genes).encode():
        msg = f"{file} belongs to another model than the files beside it. {remedy}"
        raise ValueError(msg)
    table = check_passport(stored.to_pandas(ignore_metadata=True), genes, name=str(file))
    return table.astype(dict.fromkeys(TEXTS, str))  # pandas 3 has a type of its own for text


def model_verdicts(model: ExpressionModel) -> np.ndarray:
    """Return the verdict on each gene of a model, (n_genes,) text; "not assessed" without a passport."""
    if model.passport is None:
        return np.full(len(model.genes), NOT_ASSESSED, dtype=object)
    return model.passport["verdict"].to_numpy(dtype=object)


def chosen_genes(model: ExpressionModel, genes: str | Sequence[str], min_score: float | None) -> np.ndarray:
    """Return which genes of a model are wanted, (n_genes,) bool; what is left out is logged.

    Parameters
    ----------
    model
        The model.
    genes
        "all", "use" for those with that verdict, or names.
    min_score
        Least `pcc_residual` in the passport; None is no bar.

    Raises
    ------
    KeyError
        A name is no gene of the model.
    ValueError
        The model has no passport and one is needed, or no gene is left.
    """
    names = np.asarray(model.genes, dtype=object)
    is_use = isinstance(genes, str) and genes == USE
    if (is_use or min_score is not None) and model.passport is None:
        what = f"genes={USE!r}" if is_use else f"min_score={min_score}"
        msg = f"{what} needs the model's passport, and it has none. Call sth.tl.assess(sdata, model) first."
        raise ValueError(msg)
    if isinstance(genes, str) and genes in (ALL, USE):
        chosen = np.full(len(names), True) if genes == ALL else model_verdicts(model) == USE
    else:
        wanted = [genes] if isinstance(genes, str) else list(genes)
        for gene in wanted:
            check_key(gene, names, name="genes", where="the model's genes", remedy="Or pass 'use' or 'all'.")
        chosen = np.isin(names, wanted)
    if min_score is not None and model.passport is not None:
        chosen = chosen & (model.passport["pcc_residual"].to_numpy() >= min_score)
    if not chosen.any():
        msg = f"None of the model's {len(names)} genes meets genes={genes!r}, min_score={min_score}. Lower the bar."
        raise ValueError(msg)
    if not chosen.all():
        by_passport = is_use or min_score is not None
        logger.log(
            logging.WARNING if by_passport else logging.INFO,
            "%d of %d genes are not predicted and NaN: %s.",
            (~chosen).sum(),
            len(names),
            listed(names[~chosen]),
        )
    return chosen
