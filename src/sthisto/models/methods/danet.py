"""DANet: dynamic alignment of image and expression (Wu et al., Briefings in Bioinformatics 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from sthisto._utils.validate import check_choice, check_positive
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.options import AlignmentOptions, FinetuneOptions, MethodOptions, RetrievalOptions, TrainingOptions
from sthisto.models.retrieval.contrastive import ContrastiveModel, TwoTowers
from sthisto.nn import GeneEncoder, ResidualKAN, ResidualMLP


@dataclass(frozen=True)
class _Sides(MethodOptions):
    gene_encoder: Literal["mamba", "identity"] = "mamba"
    projection: Literal["rkan", "mlp"] = "rkan"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.gene_encoder, ("mamba", "identity"), name="gene_encoder")
        check_choice(self.projection, ("rkan", "mlp"), name="projection")


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
class DANetOptions(TrainingOptions, _Projection, RetrievalOptions, AlignmentOptions, _Sides, FinetuneOptions):
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
    """


class DANet(ContrastiveModel):
    """Mamba over the genes, residual KAN projections, smoothed contrastive alignment, top-K retrieval.

    Source: Wu et al., "DANet: spatial gene expression prediction from H&E histology images through dynamic
    alignment", Briefings in Bioinformatics 2025. Built from the paper's description.
    """

    method = "danet"
    label = "DANet"
    Options = DANetOptions

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
