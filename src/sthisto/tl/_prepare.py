"""What a model is fitted on: the spots, genes, scale and patches, decided before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from sthisto._images.patches import PatchSpec
from sthisto._sdata.expression import Normalization, Target
from sthisto._sdata.inputs import default_patch_size, default_patch_um, patch_spec, section_input
from sthisto._sdata.sections import Section
from sthisto._sdata.slots import GENES_GIVEN, SPLIT, TRAIN
from sthisto._sdata.targets import TargetSets, resolve_scale
from sthisto._sdata.training import depth_knots, is_known, sibling_components, training_section
from sthisto._splits.roles import known_patients, read_roles, warn_of_overlap
from sthisto._utils.logging import logger
from sthisto.models import Encoder, ExpressionModel, SectionInput, TrainingSection
from sthisto.models.encoders.features import dense_gain
from sthisto.models.encoders.reach import known_reach
from sthisto.pp._select_genes import genes_to_model
from sthisto.pp._variable_genes import Flavor

VALIDATION_SHARE: Final = 0.1
"""Share of each section's training spots that become validation spots if none are marked."""

_GAIN: Final = 4.0
"""How many times less work one pass over the images must be than patches to be chosen."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a model is fitted on.

    Attributes
    ----------
    trained
        Positions in `sections` of those that have training spots; `training` holds these.
    genes_rule
        How the genes were chosen.
    depth_knots
        Knots of the spline of the training spots' log total counts.
    siblings
        (n_genes, n_components) components of the training residuals.
    """

    sections: list[Section]
    inputs: list[SectionInput]
    trained: list[int]
    training: list[TrainingSection]
    genes: list[str]
    genes_rule: str
    gene_symbols: str | None
    normalization: Normalization
    patch: PatchSpec
    depth_knots: tuple[float, ...]
    siblings: np.ndarray

    def densely(self) -> Prepared:
        """Return the same with features that are means over windows of maps of the whole image."""
        inputs = [replace(one, dense=True) for one in self.inputs]
        training = [replace(one, inputs=inputs[i]) for i, one in zip(self.trained, self.training, strict=True)]
        return replace(self, inputs=inputs, training=training, patch=replace(self.patch, dense=True))

    def new_model(self, cls: type[ExpressionModel], options: Any, encoder: Encoder | None) -> ExpressionModel:
        """Return a model that is not fitted yet, with the record of what it will be fitted on."""
        record = self.normalization.record()
        model = cls(self.genes, patch=self.patch, options=options, encoder=encoder, normalization=record)
        model.genes_rule = self.genes_rule
        model.depth_knots = self.depth_knots
        model.siblings = self.siblings
        return model


def prepare(
    sections: list[Section],
    cls: type[ExpressionModel],
    options: Any,
    *,
    genes: str | Sequence[str] | None,
    n_top_genes: int,
    gene_flavor: Flavor,
    layer: str | None,
    target: Target | str | None,
    target_sets: TargetSets | None,
    patch_size: int | None,
    patch_um: float | None,
    context: Sequence[float] | None,
    gene_symbols: str | None,
    patient_key: str | None,
    seed: int,
) -> Prepared:
    """Decide which spots, genes, scale and patches a model is fitted on, and read the expression.

    Parameters
    ----------
    sections
        All sections; those without training spots are embedded only.
    cls
        The method, which says whether validation spots choose an epoch and what it learns from.
    options
        Its options.
    genes, n_top_genes, gene_flavor, layer, target, target_sets, patch_size, patch_um, context, gene_symbols,
    patient_key, seed
        Arguments of `tl.fit`.
    """
    roles = read_roles(sections, validation=VALIDATION_SHARE if cls.has_epochs else 0, seed=seed)
    trained = _trained(roles)
    members, their_roles = [sections[i] for i in trained], [roles[i] for i in trained]
    patients = known_patients(members, patient_key) or [""] * len(members)
    normalization = resolve_scale(
        members, their_roles, layer=layer, target=target, target_sets=target_sets, gene_symbols=gene_symbols
    )
    if normalization.names:
        chosen, rule = list(normalization.names), GENES_GIVEN
    else:
        chosen, rule = genes_to_model(
            sections, genes, n_top_genes=n_top_genes, layer=layer, gene_symbols=gene_symbols, flavor=gene_flavor
        )
    widths = cls.default_context if context is None else tuple(float(width) for width in context)
    patch_size = default_patch_size(members, patch_um) if patch_size is None else patch_size
    patch_um = default_patch_um(members, cls) if patch_um is None else patch_um
    patch = patch_spec(members, patch_size=patch_size, patch_um=patch_um, context=widths)
    warn_of_overlap(sections, roles, replace(patch, context=(cls.widest(options, widths),)))
    inputs = [section_input(section, patch) for section in sections]
    training = [
        training_section(
            sections[i],
            inputs[i],
            roles[i],
            genes=chosen,
            normalization=normalization,
            gene_symbols=gene_symbols,
            residuals=cls.uses_residuals,
            patient=patient,
        )
        for i, patient in zip(trained, patients, strict=True)
    ]
    return Prepared(
        sections,
        inputs,
        trained,
        training,
        chosen,
        rule,
        gene_symbols,
        normalization,
        patch,
        depth_knots=depth_knots(members, their_roles, normalization),
        siblings=sibling_components(members, their_roles, normalization, genes=chosen, gene_symbols=gene_symbols),
    )


def use_dense(
    wanted: bool | None, cls: type[ExpressionModel], options: Any, encoder: Encoder | None, prepared: Prepared
) -> bool:
    """Return whether features are means over windows of maps of the whole image; None decides by the work it saves.

    Raises
    ------
    ValueError
        They are wanted, and the method looks at patches or the encoder's maps don't allow it.
    """
    if wanted is False:
        return False
    if encoder is None or cls.needs_patches(options):
        if wanted:
            msg = (
                f"dense_features=True is for features of a frozen encoder; method {cls.method!r} with these options "
                "looks at patches. Leave it out."
            )
            raise ValueError(msg)
        return False
    if wanted:
        known_reach(encoder)
        return True
    gain = dense_gain(prepared.inputs, encoder) if encoder.layers else 0.0
    if gain >= _GAIN:
        logger.info("One pass over the images is a %.0fth of the work of cutting patches: dense_features=True.", gain)
    return gain >= _GAIN


def _trained(roles: Sequence[np.ndarray]) -> list[int]:
    """Return the positions of the sections with training or validation spots, by their roles, (n_spots,) each."""
    trained = [i for i, role in enumerate(roles) if is_known(role).any()]
    if not any((roles[i] == TRAIN).any() for i in trained):
        msg = f"No spot of {len(roles)} sections is marked 'train' in obs[{SPLIT!r}]. Call sth.pp.split."
        raise ValueError(msg)
    return trained
