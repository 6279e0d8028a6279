"""DANet: dynamic alignment of image and expression (Wu et al., Briefings in Bioinformatics 2025)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from torch import Tensor, nn

from sthisto._utils.validate import check_choice, check_positive
from sthisto.models.blocks import (
    SectionFeatures,
    Standard,
    check_kinds,
    section_features,
    standardize,
    used_kinds,
)
from sthisto.models.data import Features, SectionInput, TrainingSection
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.options import AlignmentOptions, FinetuneOptions, MethodOptions, RetrievalOptions, TrainingOptions
from sthisto.models.retrieval.contrastive import ContrastiveModel, TwoTowers
from sthisto.nn import GeneEncoder, ResidualKAN, ResidualMLP

_STANDARD: Final = ("standard.mean", "standard.sd")


@dataclass(frozen=True)
class _Sides(MethodOptions):
    gene_encoder: Literal["mamba", "identity"] = "mamba"
    projection: Literal["rkan", "mlp"] = "rkan"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.gene_encoder, ("mamba", "identity"), name="gene_encoder")
        check_choice(self.projection, ("rkan", "mlp"), name="projection")


@dataclass(frozen=True)
class _Blocks(MethodOptions):
    features: Sequence[str] | None = None
    texture_context: Sequence[float] = (1.0, 2.0, 4.0, 8.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features is not None:
            check_kinds(self.features)
        for width in self.texture_context:
            check_positive(width, name="texture_context")


@dataclass(frozen=True)
class _Projection(MethodOptions):
    embedding_dim: int = 256
    bottleneck: int = 64
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.embedding_dim, name="embedding_dim")
        check_positive(self.bottleneck, name="bottleneck")


@dataclass(frozen=True)
class DANetOptions(TrainingOptions, _Projection, RetrievalOptions, AlignmentOptions, _Sides, _Blocks, FinetuneOptions):
    """Options of `DANet`.

    The defaults are the paper's for GSE240429, but for the frozen encoder and for smaller batches over more epochs:
    a few hundred spots make one batch of 256, and 25 steps are too few to learn anything. The paper's own:
    ``finetune=True, batch_size=256, max_epochs=25``, and ``learning_rate=2e-4, batch_by="section"`` on
    HER2+.

    Parameters
    ----------
    finetune
        Whether the image encoder is trained too, as published. Frozen, its features are computed once.
    augment
        Whether patches are shown under random symmetries while the encoder is trained; never at prediction.
    stain_jitter
        Spread of the stains' strength in augmentation; 0 leaves colors as they are.
    features, texture_context
        Kinds of features that the image side sees, of "texture", "encoder" and "border", each standardized within its
        section, as `Kernel` has them; None: the encoder's own, as published. They need the frozen encoder.
    gene_encoder
        "mamba" is equation 1 of the paper, "identity" leaves it out.
    projection
        "rkan" is equation 2, "mlp" puts a perceptron in the place of the KAN.
    objective
        "smoothed" is equation 3, "clip" the plain contrastive loss.
    temperature
        Temperature tau of the loss.
    batch_correction
        "harmony" removes section batch effects from the principal components of the expression that
        the gene side sees (needs harmonypy); what is retrieved stays as measured.
    k, aggregation
        Training spots that a prediction averages, and how: "average", "weighted", "simple" (the nearest alone).
    embedding_dim, bottleneck, dropout
        Widths and dropout of the projection of equation 2.
    max_epochs, patience, batch_size, learning_rate, weight_decay, batch_by
        Length of the training, batches and AdamW. Training stops after `patience` epochs that did not improve the
        validation loss.
    precision, devices, num_nodes, strategy
        Arguments of `lightning.fabric.Fabric`.
    expression_components
        Numbers of principal components of the training expression that predictions are projected on; the mean over
        several. None: no projection, as published.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.finetune and self.features is not None:
            msg = (
                f"features={tuple(self.features)!r} are computed once, with the frozen encoder; finetune=True trains "
                "it. Leave one of them out."
            )
            raise ValueError(msg)


class DANet(ContrastiveModel):
    """Mamba over the genes, residual KAN projections, smoothed contrastive alignment, top-K retrieval.

    Source: Wu et al., "DANet: spatial gene expression prediction from H&E histology images through dynamic
    alignment", Briefings in Bioinformatics 2025. Built from the paper's description.
    """

    method = "danet"
    label = "DANet"
    Options = DANetOptions
    _usual: Standard | None = None

    @classmethod
    def needs_encoder(cls, options: Any) -> bool:
        """Return whether an image encoder is used with these options."""
        return options.features is None or "encoder" in options.features

    @classmethod
    def widest(cls, options: Any, context: Sequence[float]) -> float:
        """Return the widest view, relative to the patch."""
        texture = options.texture_context if "texture" in (options.features or ()) else ()
        return max((*context, *texture))

    def image_features(self, section: SectionInput) -> Features:
        """Return the encoder's features, or standardized blocks of the chosen kinds."""
        if self.options.features is None:
            return super().image_features(section)
        found = self._blocks(section)
        values = standardize(found, self._usual) * found.layout.divisors()
        return Features(values.astype(np.float32), found.fingerprint)

    def _blocks(self, section: SectionInput) -> SectionFeatures:
        return section_features(
            section,
            used_kinds(self.options.features, self._encoder),
            encoder=self._encoder,
            context=self.patch.context,
            texture_context=self.options.texture_context,
        )

    def fit_sections(self, sections: Sequence[TrainingSection], seed: int) -> None:
        """Align the two sides, then fill the bank with gene embeddings."""
        if self.options.features is not None:
            self._usual = Standard.of(np.concatenate([self._blocks(s.inputs).values[s.train] for s in sections]))
        super().fit_sections(sections, seed)

    def state_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of what was learned."""
        if self.options.features is None:
            return super().state_axes()
        return {
            "image_head.projection.weight": (self.options.embedding_dim, "features"),
            "gene_head.projection.weight": (self.options.embedding_dim, "genes"),
            **dict.fromkeys(_STANDARD, ("features",)),
        }

    def state(self) -> dict[str, Tensor]:
        """Return the weights of both sides, and what standardizes the features of small sections."""
        if self._usual is None:
            return super().state()
        return super().state() | dict(zip(_STANDARD, self._usual.tensors(), strict=True))

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights, and what standardizes the features of small sections."""
        if self.options.features is not None:
            self._usual = Standard.from_tensors(*(state[name] for name in _STANDARD))
        super().load_state({name: value for name, value in state.items() if name not in _STANDARD})

    def towers(self, n_features: int, encoder: Encoder | None) -> TwoTowers:
        """Return the two sides of equations 1 and 2."""
        gene_encoder = GeneEncoder() if self.options.gene_encoder == "mamba" else nn.Identity()
        return TwoTowers(
            image_head=self._head(n_features),
            gene_encoder=gene_encoder,
            gene_head=self._head(len(self.genes)),
            encoder=encoder,
        )

    def _head(self, in_features: int) -> nn.Module:
        o = self.options
        if o.projection == "mlp":
            return ResidualMLP(in_features, o.embedding_dim, dropout=o.dropout)
        return ResidualKAN(in_features, o.embedding_dim, bottleneck=o.bottleneck, dropout=o.dropout)
