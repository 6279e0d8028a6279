"""Measured and predicted values of sections on one scale, read from the slots of their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from sthisto._sdata.expression import Normalization, looks_like_counts
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.measured import read_expression
from sthisto._sdata.predictions import has_spread, predicted_names, predicted_values
from sthisto._sdata.record import check_predicted, method_labels, read_normalization, read_record, symbols_of
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.slots import FITTED, SPLIT, TEST, modeled_gene, prediction, prediction_sd, seen, verdict
from sthisto._sdata.tables import gene_positions, read_matrix, read_rows, where_counts_may_be
from sthisto._utils.targets import OBSM, SET_MEANS, is_proportions
from sthisto._utils.validate import check_key, listed
from sthisto._utils.verdicts import VERDICTS
from sthisto.metrics import pearson

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

TRAINED_ON: Final = " (trained on)"
NO_TEST_SPOTS: Final = " (no test spots)"


def choose_sections(
    sdata: SpatialData | Sequence[SpatialData], names: str | Sequence[str] | None, keys: ElementKeys
) -> list[Section]:
    """Return the sections with the given names, in that order. None: all sections."""
    sections = {section.name: section for section in read_sections(sdata, keys)}
    if names is None:
        return list(sections.values())
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        check_key(name, sections, name="sections", where="the sections of the data")
    return [sections[name] for name in wanted]


def predicted_sections(sections: Sequence[Section], keys: Sequence[str], *, named: bool) -> list[Section]:
    """Return the sections with a prediction under every key; raise ValueError if one that was `named` has none."""
    for section in sections:
        for key in keys:
            check_predicted(section.table, key)
    found = [section for section in sections if all(_is_predicted(section, key) for key in keys)]
    if (named and len(found) < len(sections)) or not found:
        missing = [section.name for section in sections if section not in found]
        msg = (
            f"No spot of {listed(missing)} has a prediction under {listed(keys)}. "
            "Call sth.tl.predict(sdata, model, key_added=…) for them, or pass other sections."
        )
        raise ValueError(msg)
    return found


def _is_predicted(section: Section, key: str) -> bool:
    symbols = symbols_of(section.table, key)
    names = predicted_names(section.table, key, symbols)
    return bool(np.isfinite(_values(section, key, prediction(key), names, symbols)).any())


def _values(section: Section, key: str, slot: str, names: Sequence[str], symbols: str | None) -> np.ndarray:
    return predicted_values(section.table, key, slot, names, rows=section.rows, gene_symbols=symbols)


def read_scale(tables: Sequence[AnnData], keys: Sequence[str]) -> Normalization:
    """Return the normalization that the predictions of all keys share, of the counts that they were evaluated against.

    Raises
    ------
    ValueError
        They differ, so that their values cannot be compared.
    """
    scales = {(key, id(table)): read_normalization(table, key) for table in tables for key in keys}
    first = next(iter(scales.values()))
    if any(scale != first for scale in scales.values()):
        by_key = {key: str(scale) for (key, _), scale in scales.items()}
        msg = (
            f"The predictions are on different scales and cannot share a picture: {by_key}. "
            "Draw them one by one, or fit them with the same normalization."
        )
        raise ValueError(msg)
    counts = [read_record(table, key).counts_layer for table in tables for key in keys]
    evaluated = next((layer for layer in counts if layer is not None), None)
    return first if evaluated is None or first.target == "as_is" else replace(first, layer=evaluated)


def scale_label(scale: Normalization) -> str:
    """Return the unit of expression for a color bar."""
    if scale.target == "log1p":
        return "log1p " + {1e4: "CP10K", 1e6: "CPM"}.get(scale.target_sum, f"counts per {scale.target_sum:g}")
    if is_proportions(scale.target):
        return "proportion"
    residual = "Pearson residual"
    return {"pearson_residuals": residual, SET_MEANS: f"mean {residual}", "as_is": scale.layer or "X"}[scale.target]


def measured(section: Section, scale: Normalization, genes: Sequence[str], symbols: str | None = None) -> np.ndarray:
    """Return the measured expression on the scale of the predictions, (n_spots, n_genes), NaN for spots without any.

    Raises
    ------
    ValueError
        Nothing was measured there: `is_measured` is False.
    """
    if not is_measured(section, scale):
        msg = (
            f"{scale.layer or 'X'} of table {section.table_key!r} holds no raw counts, so nothing was measured there. "
            f"{_where_measured(section.table)} gene_compare draws the prediction alone with show_measured=False, and "
            "obs holds the confidence of each spot."
        )
        raise ValueError(msg)
    if scale.names:
        spots = np.arange(len(section))
        return read_expression(section, spots, genes=genes, normalization=scale, gene_symbols=symbols)
    matrix = read_rows(section, scale.layer)
    values = scale(matrix, gene_positions(section.table, genes, symbols))
    if scale.target != "as_is":
        values[np.asarray(matrix.sum(axis=1)).ravel() == 0] = np.nan
    return values


def _where_measured(table: AnnData) -> str:
    """Return what to do about a table whose layer of counts is not the one that the model was fitted on."""
    if layers := where_counts_may_be(table, "counts_layer"):
        return f"Call sth.tl.evaluate(sdata, counts_layer=…), which records where the counts are.{layers}"
    return "Pass table_key=… of a table with measured expression."


def is_measured(section: Section, scale: Normalization) -> bool:
    """Return whether the table has measured expression that can be brought to the scale of the predictions."""
    table = section.table
    if is_proportions(scale.target):
        return scale.target.removeprefix(OBSM) in table.obsm
    if table.X is None and scale.layer is None:
        return False
    if not all(value.get("holds_measurement", True) for value in table.uns.values() if isinstance(value, Mapping)):
        return False
    return scale.target == "as_is" or looks_like_counts(read_rows(section, scale.layer))


def predicted(section: Section, key: str, genes: Sequence[str], symbols: str | None = None) -> np.ndarray:
    """Return the predicted expression, (n_spots, n_genes); raise KeyError for a gene that is not predicted."""
    values = _values(section, key, prediction(key), genes, symbols)
    absent = ~np.isfinite(values).any(axis=0)
    if absent.any():
        missing = [gene for gene, empty in zip(genes, absent, strict=True) if empty]
        msg = (
            f"{listed(missing)} not predicted under key_added={key!r} for {section.name!r}. The genes that are: "
            f"table.var_names[table.var[{modeled_gene(key)!r}]], chosen by sth.tl.fit(sdata, genes=…)."
        )
        raise KeyError(msg)
    return values


def verdicts(section: Section, key: str, genes: Sequence[str], symbols: str | None = None) -> list[str]:
    """Return the passport's verdict on each gene under a key; "" where there is none."""
    column = section.table.var.get(verdict(key))
    if column is None:
        return [""] * len(genes)
    found = [str(value) for value in column.iloc[gene_positions(section.table, genes, symbols)]]
    return [one if one in VERDICTS else "" for one in found]


def spread(section: Section, key: str, genes: Sequence[str], symbols: str | None = None) -> np.ndarray:
    """Return the standard deviation of the prediction, (n_spots, n_genes); raise KeyError if the method gave none."""
    if not has_spread(section.table, key):
        msg = (
            f"The table has no layer {prediction_sd(key)!r}, the spread of the prediction. "
            f"Call sth.tl.predict(sdata, model, key_added={key!r}) with a model that gives one."
        )
        raise KeyError(msg)
    return _values(section, key, prediction_sd(key), genes, symbols)


def read_layer(section: Section, layer: str, genes: Sequence[str], symbols: str | None = None) -> np.ndarray:
    """Return the values of a layer, (n_spots, n_genes) float32."""
    columns = gene_positions(section.table, genes, symbols)
    values = read_matrix(section.table, layer)[section.rows][:, columns]
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float32)


def scored_spots(section: Section, keys: Sequence[str] = ()) -> tuple[np.ndarray, str]:
    """Return the spots to score, (n_spots,) bool, and the remark on them, "" where they are held out.

    They are those that `sthisto.tl.evaluate` scores: the test spots, or all without a split, except those that a model
    was trained on. If none remains, all spots are returned, with the remark that stands behind the name of a method.
    """
    obs = section.table.obs.iloc[section.rows]
    scored = obs[SPLIT].eq(TEST).to_numpy() if SPLIT in obs else np.ones(len(section), dtype=bool)
    recorded = [obs[seen(key)].eq(1) for key in keys if seen(key) in obs]
    for trained in recorded:
        scored = scored & ~trained.to_numpy()
    if scored.any():
        return scored, ""
    if not recorded and SPLIT in obs:
        recorded = [obs[SPLIT].isin(FITTED)]
    is_trained = any(trained.any() for trained in recorded)
    return np.ones(len(section), dtype=bool), TRAINED_ON if is_trained else NO_TEST_SPOTS


def joint_remark(remarks: Sequence[str]) -> str:
    """Return the remark on several sections, of which only those without one count where there are such."""
    if "" in remarks:
        return ""
    return TRAINED_ON if TRAINED_ON in remarks else NO_TEST_SPOTS


def correlations(truth: np.ndarray, values: np.ndarray, spots: np.ndarray) -> np.ndarray:
    """Return the Pearson correlation of each gene over some spots, (n_genes,), of (n_spots, n_genes) arrays."""
    return pearson(truth[spots], values[spots])


@dataclass(frozen=True)
class Scored:
    """Measured and predicted values of the scored spots of all sections.

    Attributes
    ----------
    genes
        Those that every method predicts.
    truth
        (n_spots, n_genes) measured values.
    predictions
        (n_spots, n_genes) predictions by the method's title.
    section
        (n_spots,) number of each spot's section.
    remark
        What stands behind the name of a method, "" where the spots are held out.
    """

    genes: list[str]
    truth: np.ndarray
    predictions: dict[str, np.ndarray]
    section: np.ndarray
    remark: str


def read_scored(
    sections: Sequence[Section], keys: Sequence[str], genes: Sequence[str] | None, symbols: str | None
) -> Scored:
    """Read measured and predicted values of the scored spots. `genes` None: all that every method predicts."""
    tables = [section.table for section in sections]
    symbols = symbols or symbols_of(tables[0], keys[0])
    chosen = list(genes) if genes is not None else shared_genes(tables, keys, symbols)
    scale, titles = read_scale(tables, keys), method_labels(tables, keys)
    scored = [scored_spots(section, keys) for section in sections]
    remark = joint_remark([one for _, one in scored])
    kept = [(section, spots) for section, (spots, one) in zip(sections, scored, strict=True) if remark or not one]
    truth = np.concatenate([measured(section, scale, chosen, symbols)[spots] for section, spots in kept])
    finite = np.isfinite(truth).all(axis=1)
    predictions = {}
    for key in keys:
        values = np.concatenate([predicted(section, key, chosen, symbols)[spots] for section, spots in kept])
        finite &= np.isfinite(values).all(axis=1)
        predictions[titles[key]] = values
    return Scored(
        genes=chosen,
        truth=truth[finite],
        predictions={title: values[finite] for title, values in predictions.items()},
        section=np.repeat(np.arange(len(kept)), [spots.sum() for _, spots in kept])[finite],
        remark=remark,
    )


def within_sections(values: np.ndarray, section: np.ndarray) -> np.ndarray:
    """Return values less each section's mean of every gene, (n_spots, n_genes) float64.

    Parameters
    ----------
    values
        (n_spots, n_genes) values of all sections.
    section
        (n_spots,) number of each spot's section.
    """
    centered = values.astype(float)
    for number in np.unique(section):
        centered[section == number] -= centered[section == number].mean(axis=0)
    return centered


def shared_genes(tables: Sequence[AnnData], keys: Sequence[str], symbols: str | None) -> list[str]:
    """Return the genes that every method predicts in every table, in the order of the first."""
    sets = [predicted_names(table, key, symbols) for table in tables for key in keys]
    common = set(sets[0]).intersection(*sets[1:])
    if not common:
        msg = f"The methods under {listed(keys)} have no predicted gene in common."
        raise ValueError(msg)
    return [gene for gene in sets[0] if gene in common]
