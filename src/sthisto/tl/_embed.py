"""Embed spots in the space that image and expression share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sthisto._sdata import slots
from sthisto._sdata.expression import Normalization
from sthisto._sdata.features import for_encoder
from sthisto._sdata.inputs import section_input
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.measured import check_scale, read_expression
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.write import Update, apply, obsm_updates
from sthisto._utils.arguments import checked
from sthisto._utils.checks import flag
from sthisto.models import ExpressionModel, SectionInput
from sthisto.models.given import given_model
from sthisto.models.torch_state import plain_torch

if TYPE_CHECKING:
    from spatialdata import SpatialData


@checked(genes=flag)
@plain_torch()
def embed(
    sdata: SpatialData | Sequence[SpatialData],
    model: ExpressionModel | str | Path,
    *,
    genes: bool = True,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    gene_symbols: str | None = None,
    key_added: str = slots.KEY,
) -> None:
    """Embed every spot with a fitted model.

    Parameters
    ----------
    sdata
        One SpatialData, or a list of them.
    model
        Model from `tl.fit` or `models.load`, or the path of a saved one.
    genes
        Whether to embed the expression too, for methods that can. With False, only the images are used.
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
    gene_symbols
        Column of ``var`` with the gene names. None: ``var_names``.
    key_added
        Prefix of the written slots.

    Returns
    -------
    None. Writes ``obsm["X_{key_added}"]`` and, with `genes`, ``obsm["X_{key_added}_gene"]``, both (n_obs, n_dimensions)
    float32; NaN for spots that are left out or have no counts.

    Raises
    ------
    TypeError
        The method has no embedding.
    KeyError
        An element, a layer or a gene is missing.
    ValueError
        The expression is not on the scale that the model was fitted on, or an element is ambiguous.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> model = sth.tl.fit(sdata, method="ridge", image_encoder="efficientnet_lite0")  # doctest: +SKIP
    >>> sth.tl.embed(sdata, model)  # doctest: +SKIP
    """
    fitted = given_model(model)
    if not fitted.has_embedding:
        msg = f"Method {fitted.method!r} has no embedding."
        raise TypeError(msg)
    sections = for_encoder(
        read_sections(sdata, ElementKeys(image_key, shapes_key, table_key, coordinate_system, um_per_px)),
        fitted.encoder if fitted.has_encoder else None,
    )
    expression = {}
    if genes and fitted.has_gene_embedding:
        normalization = Normalization.from_record(fitted.normalization)
        for i, section in enumerate(sections):
            check_scale(section, normalization)
            expression[i] = read_expression(
                section,
                np.arange(len(section)),
                genes=fitted.genes,
                normalization=normalization,
                gene_symbols=gene_symbols,
            )
    inputs = [section_input(section, fitted.patch) for section in sections]
    apply(embedding_updates(sections, inputs, fitted, expression, key_added=key_added))


def embedding_updates(
    sections: Sequence[Section],
    inputs: Sequence[SectionInput],
    model: ExpressionModel,
    expression: Mapping[int, np.ndarray],
    *,
    key_added: str,
) -> list[Update]:
    """Return the updates that write the embeddings of all images, and of the expression where it is given.

    Parameters
    ----------
    expression
        Position of a section -> its (n_spots, n_genes) normalized expression, NaN where it is not to be embedded.
    """
    if not model.has_embedding:
        return []
    images = [model.embed(one) for one in inputs]
    updates = obsm_updates(sections, slots.image_embedding(key_added), images)
    if model.has_gene_embedding and expression:
        width = images[0].shape[1]
        values = [_embed_genes(model, expression.get(i), len(section), width) for i, section in enumerate(sections)]
        updates += obsm_updates(sections, slots.gene_embedding(key_added), values)
    return updates


def _embed_genes(model: ExpressionModel, expression: np.ndarray | None, n_spots: int, width: int) -> np.ndarray:
    embedding = np.full((n_spots, width), np.nan, dtype=np.float32)
    if expression is not None:
        known = np.isfinite(expression).all(axis=1)
        embedding[known] = model.embed_genes(expression[known])
    return embedding
