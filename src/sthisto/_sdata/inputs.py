"""Sections of a SpatialData as input of the models: patches, positions and expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from sthisto._images.patches import PatchSpec
from sthisto._sdata.expression import Normalization, check_finite, looks_like_counts
from sthisto._sdata.features import TableFeatures
from sthisto._sdata.sections import Section
from sthisto._sdata.tables import gene_positions, is_gene, read_rows
from sthisto._utils.defaults import PATCH_SIZE
from sthisto._utils.logging import logger
from sthisto._utils.targets import OBSM, is_proportions
from sthisto._utils.validate import check_key, listed
from sthisto.models import METHODS, ExpressionModel, SectionInput

_WIDEST_UM = 400
_SMALLEST_PATCH = 32
"""Width in µm above which a patch, wider than eight Visium spots, is probably a mistake."""


def section_input(section: Section, spec: PatchSpec) -> SectionInput:
    """Return the patches, positions, image and given features of a section's spots."""
    return SectionInput(
        section.name,
        section.patches(spec),
        section.centers,
        dense=spec.dense,
        image=section.image,
        um_per_px=(section.um_per_px or spec.um_per_px) if spec.um_per_px else None,
        given=TableFeatures(section.table, section.rows),
    )


def read_expression(
    section: Section,
    spots: np.ndarray,
    *,
    genes: Sequence[str],
    normalization: Normalization,
    gene_symbols: str | None,
) -> np.ndarray:
    """Return the normalized expression of some spots of a section, by their positions in it: (n_spots, n_genes).

    Other spots are NaN and take no part in the normalization. Spots without any count are NaN too. Of a scale that has
    sets of genes or proportions in place of genes, `genes` are their names.
    """
    if normalization.names:
        order = [normalization.names.index(name) for name in genes]
        return _read_targets(section, spots, normalization, gene_symbols)[:, order]
    columns = gene_positions(section.table, genes, gene_symbols)
    if not (are_genes := is_gene(section.table)[columns]).all():
        others = [gene for gene, is_one in zip(genes, are_genes, strict=True) if not is_one]
        msg = f"{listed(others)} are no genes by var['feature_types'] of the table. Leave them out of genes=…"
        raise ValueError(msg)
    matrix = read_rows(section, normalization.layer, spots)
    check_finite(matrix)
    filled = np.asarray(abs(matrix).sum(axis=1)).ravel() > 0
    expression = np.full((len(section), len(genes)), np.nan, dtype=np.float32)
    expression[spots[filled]] = normalization(matrix[np.flatnonzero(filled)], columns)
    return expression


def _read_targets(section: Section, spots: np.ndarray, scale: Normalization, gene_symbols: str | None) -> np.ndarray:
    """Return what some spots of a section have in place of genes, (n_spots, n_targets); NaN for all others."""
    if is_proportions(scale.target):
        values = np.full((len(section), len(scale.names)), np.nan, dtype=np.float32)
        values[spots] = _proportions(section, scale, section.rows[spots])
        return values
    genes, weights = scale.set_weights()
    residuals = Normalization("pearson_residuals", scale.layer)
    expression = read_expression(section, spots, genes=genes, normalization=residuals, gene_symbols=gene_symbols)
    return np.asarray(expression @ weights.astype(np.float32))


def _proportions(section: Section, scale: Normalization, rows: np.ndarray) -> np.ndarray:
    """Return the proportions in rows of the table, (n, n_types), scaled to the sum one; NaN where there are none.

    Raises
    ------
    KeyError
        The table has no such slot.
    ValueError
        It has another number of columns.
    """
    key = scale.target.removeprefix(OBSM)
    check_key(key, section.table.obsm, name="target", where="the slots of obsm")
    values = np.asarray(section.table.obsm[key], dtype=np.float64).reshape(section.table.n_obs, -1)[rows]
    if values.shape[1] != len(scale.names):
        msg = f"obsm[{key!r}] of section {section.name!r} has {values.shape[1]} columns, expected {len(scale.names)}."
        raise ValueError(msg)
    total = values.sum(axis=1, keepdims=True)
    return np.divide(values, total, out=np.full_like(values, np.nan), where=total > 0)


def check_scale(section: Section, normalization: Normalization) -> None:
    """Raise ValueError if a section has no counts and the model's normalization needs them, or the reverse."""
    if is_proportions(normalization.target):
        return
    is_counts = looks_like_counts(read_rows(section, normalization.layer))
    place = f"{'X' if normalization.layer is None else f'Layer {normalization.layer!r}'} of section {section.name!r}"
    if is_counts and normalization.target == "as_is":
        msg = (
            f"{place} holds raw counts, but the model was fitted on values taken as they are. Normalize them likewise."
        )
        raise ValueError(msg)
    if not is_counts and normalization.target != "as_is":
        msg = f"{place} holds no raw counts, which the model's normalization ({normalization.target!r}) needs."
        raise ValueError(msg)


def patch_spec(
    sections: Sequence[Section], *, patch_size: int, patch_um: float | None, context: Sequence[float]
) -> PatchSpec:
    """Return the patches to fit on, with their µm per px if these are known.

    Without `patch_um`, a patch is `patch_size` px of the full resolution. Where sections differ in resolution, the
    others are resampled to the finest.
    """
    known = {section.name: section.um_per_px for section in sections if section.um_per_px is not None}
    unknown = [section.name for section in sections if section.um_per_px is None]
    if patch_um is not None:
        if unknown:
            msg = (
                f"patch_um={patch_um} needs the µm per px, which are unknown for {listed(unknown)}. Pass um_per_px=…, "
                "or give the size in px with patch_size=…"
            )
            raise ValueError(msg)
        return PatchSpec(patch_size, patch_um / patch_size, tuple(context))
    if unknown and known:
        msg = (
            f"The µm per px are known for {listed(known)} and unknown for {listed(unknown)}, so that their patches "
            "cannot be brought to one size. Pass um_per_px=…"
        )
        raise ValueError(msg)
    if unknown:
        logger.warning("The µm per px are unknown: a patch is %d px, whatever tissue that covers.", patch_size)
        return PatchSpec(patch_size, None, tuple(context))
    finest, coarsest = min(known.values()), max(known.values())
    if coarsest > 1.05 * finest:
        logger.warning(
            "Sections differ in resolution (%.3g to %.3g µm per px): all are resampled to %.3g.",
            finest,
            coarsest,
            finest,
        )
    if patch_size * finest > _WIDEST_UM:
        logger.warning(
            "A patch of %d px covers %.0f µm of tissue, because the images are coarse: %.2g µm per px. Pass the "
            "full-resolution images with image_key=…, if there are any, or the width of tissue with patch_um=….",
            patch_size,
            patch_size * finest,
            finest,
        )
    return PatchSpec(patch_size, finest, tuple(context))


def seen_width(sections: Sequence[Section], arguments: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """Return the width in px, for each section, that any of the methods sees around a spot.

    `arguments` are those of `tl.fit`, for each method.
    """
    widths = [_width(sections, name, of_method) for name, of_method in arguments.items()]
    return [max(of_section) for of_section in zip(*widths, strict=True)]


def default_patch_size(sections: Sequence[Section], patch_um: float | None) -> int:
    """Return the px of a patch: those of `patch_um` of tissue in the finest image, 32 to 224, so that none is enlarged.

    Without `patch_um`, or where the µm per px are unknown, 224.
    """
    known = [section.um_per_px for section in sections if section.um_per_px is not None]
    if patch_um is None or not known:
        return PATCH_SIZE
    return int(np.clip(round(patch_um / min(known)), _SMALLEST_PATCH, PATCH_SIZE))


def default_patch_um(sections: Sequence[Section], cls: type[ExpressionModel]) -> float | None:
    """Return the width of a patch in µm that a method takes by default, None where it or the µm per px are unknown."""
    return cls.default_patch_um if all(section.um_per_px is not None for section in sections) else None


def _width(sections: Sequence[Section], method: str, arguments: Mapping[str, Any]) -> list[float]:
    cls = METHODS[method]
    names = {field.name for field in fields(cls.Options)}
    options = cls.make_options({name: value for name, value in arguments.items() if name in names})
    patch_um, context = arguments.get("patch_um"), arguments.get("context") or cls.default_context
    patch_size = arguments.get("patch_size")
    spec = patch_spec(
        sections,
        patch_size=default_patch_size(sections, patch_um) if patch_size is None else patch_size,
        patch_um=default_patch_um(sections, cls) if patch_um is None else patch_um,
        context=(cls.widest(options, context),),
    )
    return [spec.width_on(section.um_per_px) for section in sections]
