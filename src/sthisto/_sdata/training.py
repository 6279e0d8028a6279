"""Sections to train on: the scale of their expression, and its values at training and validation spots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sthisto._sdata.expression import Normalization, Target, looks_like_counts
from sthisto._sdata.measured import read_expression
from sthisto._sdata.sections import Section
from sthisto._sdata.slots import FITTED, TRAIN, VALIDATION
from sthisto._sdata.tables import gene_positions, read_rows, warn_of_other_features, where_counts_may_be
from sthisto._utils.logging import logger
from sthisto._utils.targets import is_proportions
from sthisto._utils.validate import listed
from sthisto.metrics import DepthSpline, SiblingReference
from sthisto.metrics._siblings import sample_rows
from sthisto.models import SectionInput, TrainingSection

_FEWEST_OF_MOST = 0.5
"""Share of the genes of another section below which a section was probably cut to a panel."""


def training_section(
    section: Section,
    inputs: SectionInput,
    role: np.ndarray,
    *,
    genes: Sequence[str],
    normalization: Normalization,
    gene_symbols: str | None,
    residuals: bool = False,
    patient: str = "",
) -> TrainingSection:
    """Return a section with the normalized expression of its training and validation spots, NaN elsewhere.

    Spots with zero counts are dropped, with a warning. With `residuals`, Pearson residuals are read beside log1p
    expression.

    Parameters
    ----------
    role
        (n_spots,) role of every spot.
    genes
        Genes to read, by `gene_symbols`.
    normalization
        Scale of the expression.
    patient
        Whose tissue it is; "" where that is unknown.
    """
    known = is_known(role)

    def read(scale: Normalization) -> np.ndarray:
        return read_expression(
            section, np.flatnonzero(known), genes=genes, normalization=scale, gene_symbols=gene_symbols
        )

    expression = read(normalization)
    used = known & np.isfinite(expression).all(axis=1)
    if (empty := known & ~used).any():
        what = "proportions" if is_proportions(normalization.target) else "counts"
        logger.warning("%d spots of %r have no %s: they are not trained on.", empty.sum(), section.name, what)
    return TrainingSection(
        inputs=inputs,
        expression=expression,
        train=np.flatnonzero(used & (role == TRAIN)),
        validation=np.flatnonzero(used & (role == VALIDATION)),
        residuals=read(replace(normalization, target="pearson_residuals"))
        if residuals and normalization.target == "log1p"
        else None,
        patient=patient,
    )


def is_known(role: np.ndarray) -> np.ndarray:
    """Return which spots are training or validation spots, (n_spots,) bool, by their (n_spots,) roles."""
    return np.isin(role, FITTED)


def resolve_normalization(
    sections: Sequence[Section], roles: Sequence[np.ndarray], *, layer: str | None, target: Target | None
) -> Normalization:
    """Return the normalization to fit on: counts are recognized, other values are used as they are.

    Only training and validation spots are read, by the roles of each section's spots, (n_spots,).

    Raises
    ------
    ValueError
        `target` needs counts and there are none, or only some sections hold counts.
    """
    counts, n_genes = [], []
    for section, role in zip(sections, roles, strict=True):
        matrix = read_rows(section, layer, np.flatnonzero(is_known(role)))
        counts.append(looks_like_counts(matrix))
        n_genes.append(int(np.count_nonzero(np.bincount(matrix.indices[matrix.data != 0]))))
    for table in {id(section.table): section.table for section in sections}.values():
        warn_of_other_features(table)
    _warn_of_panels(sections, n_genes)
    _check_no_negative_counts(sections, roles, counts, layer)
    if len(set(counts)) > 1:
        some = [section.name for section, is_counts in zip(sections, counts, strict=True) if is_counts]
        msg = f"Only some sections hold raw counts: {listed(some)}. All must be on one scale; pass layer=…"
        raise ValueError(msg)
    if counts[0]:
        return Normalization(target or "log1p", layer)
    if target not in (None, "as_is"):
        msg = f"target={target!r} needs raw counts, and {'X' if layer is None else layer!r} holds none. Pass layer=…"
        raise ValueError(msg)
    logger.warning(
        "%s holds no raw counts: its values are taken as they are, as if already normalized.%s",
        "X" if layer is None else f"Layer {layer!r}",
        where_counts_may_be(sections[0].table, "layer", layer),
    )
    return Normalization("as_is", layer)


def _warn_of_panels(sections: Sequence[Section], n_genes: Sequence[int]) -> None:
    """Warn where sections were cut to different panels: their library sizes are then on different scales."""
    fewest, most = int(np.argmin(n_genes)), int(np.argmax(n_genes))
    if n_genes[fewest] < _FEWEST_OF_MOST * n_genes[most]:
        logger.warning(
            "Section %r has counts of %d genes, section %r of %d: where one was cut to a panel, its library size and "
            "so its expression are on another scale. Keep all measured genes in every table.",
            sections[fewest].name,
            n_genes[fewest],
            sections[most].name,
            n_genes[most],
        )


def _check_no_negative_counts(
    sections: Sequence[Section], roles: Sequence[np.ndarray], counts: Sequence[bool], layer: str | None
) -> None:
    """Raise ValueError for whole numbers some of which are negative; `roles` are (n_spots,) for each section."""
    for section, role, is_counts in zip(sections, roles, counts, strict=True):
        values = read_rows(section, layer, np.flatnonzero(is_known(role))).data
        if not is_counts and (values < 0).any() and (values == np.rint(values)).all():
            msg = (
                f"{'X' if layer is None else f'Layer {layer!r}'} of section {section.name!r} holds whole numbers, "
                f"{(values < 0).sum()} of them negative, down to {values.min():g}: these are no counts. Correct "
                "them, or pass layer=…"
            )
            raise ValueError(msg)


def depth_knots(
    sections: Sequence[Section], roles: Sequence[np.ndarray], normalization: Normalization
) -> tuple[float, ...]:
    """Return the knots of a spline of the training spots' log total counts; none without counts of several depths.

    Parameters
    ----------
    sections
        The sections that are trained on.
    roles
        (n_spots,) role of every spot of each section.
    normalization
        Names the layer of counts.
    """
    if normalization.target == "as_is" or is_proportions(normalization.target):
        return ()
    totals = [
        np.asarray(read_rows(section, normalization.layer, np.flatnonzero(is_known(role))).sum(axis=1)).ravel()
        for section, role in zip(sections, roles, strict=True)
    ]
    depth = np.concatenate(totals)
    return DepthSpline.fit(np.log(depth[depth > 0])).knots if len(np.unique(depth[depth > 0])) > 1 else ()


def sibling_components(
    sections: Sequence[Section],
    roles: Sequence[np.ndarray],
    normalization: Normalization,
    *,
    genes: Sequence[str],
    gene_symbols: str | None,
    seed: int = 0,
) -> np.ndarray:
    """Return the components of the training residuals by which genes predict each other, (n_genes, n_components).

    There is none without counts, and for what is predicted in place of genes.

    Parameters
    ----------
    sections, roles, normalization
        As for `depth_knots`.
    genes, gene_symbols
        The modeled genes.
    seed
        Seed of `SiblingReference.fit`.
    """
    if normalization.target == "as_is" or normalization.names:
        return np.zeros((len(genes), 0), dtype=np.float32)
    scale = Normalization("pearson_residuals", normalization.layer)
    known = [np.flatnonzero(is_known(role)) for role in roles]
    residuals = [
        scale(read_rows(section, normalization.layer, spots[kept]), gene_positions(section.table, genes, gene_symbols))
        for section, spots, kept in zip(sections, known, sample_rows([len(one) for one in known], seed), strict=True)
    ]
    return SiblingReference.fit(residuals, seed=seed).components.astype(np.float32)
