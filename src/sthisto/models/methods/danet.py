"""DANet: dynamic alignment of image and expression (Wu et al., Briefings in Bioinformatics 2025)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from sthisto._utils.validate import check_choice, check_positive
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.retrieval.contrastive import ContrastiveModel, TwoTowers
from sthisto.models.training.augment import check_stain_jitter
from sthisto.nn import GeneEncoder, ResidualKAN, ResidualMLP


@dataclass(frozen=True)
class DANetOptions:
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
        Of the loss.
    batch_correction
        "harmony" takes what only tells training sections apart out of the principal components of the expression that
        the gene side sees (needs harmonypy); what is retrieved stays as measured.
    k, aggregation
        Training spots that a prediction averages, and how: "average", "weighted", "simple" (the nearest alone).
    embedding_dim, bottleneck, dropout
        Of the projection.
    max_epochs, patience, batch_size, learning_rate, weight_decay, batch_by
        Of the training. It stops after `patience` epochs that did not improve the validation loss.
    precision, devices, num_nodes, strategy
        As Lightning Fabric takes them.
    """

    finetune: bool = False
    augment: bool = True
    stain_jitter: float = 0.0
    gene_encoder: Literal["mamba", "identity"] = "mamba"
    projection: Literal["rkan", "mlp"] = "rkan"
    objective: Literal["smoothed", "clip"] = "smoothed"
    temperature: float = 1.0
    batch_correction: Literal["harmony"] | None = None
    k: int = 100
    aggregation: Literal["average", "weighted", "simple"] = "average"
    embedding_dim: int = 256
    bottleneck: int = 64
    dropout: float = 0.1
    max_epochs: int = 50
    patience: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 1e-3
    batch_by: Literal["mixed", "section"] = "mixed"
    precision: str = "32-true"
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"

    def __post_init__(self) -> None:
        check_stain_jitter(self.stain_jitter, trained=self.finetune and self.augment)
        for name in ("temperature", "k", "embedding_dim", "bottleneck"):
            check_positive(getattr(self, name), name=name)
        check_choice(self.gene_encoder, ("mamba", "identity"), name="gene_encoder")
        check_choice(self.projection, ("rkan", "mlp"), name="projection")
        check_choice(self.objective, ("smoothed", "clip"), name="objective")
        check_choice(self.batch_correction, (None, "harmony"), name="batch_correction")
        check_choice(self.aggregation, ("average", "weighted", "simple"), name="aggregation")


class DANet(ContrastiveModel):
    """Mamba over the genes, residual KAN projections, smoothed contrastive alignment, top-K retrieval.

    Source: Wu et al., "DANet: spatial gene expression prediction from H&E histology images through dynamic
    alignment", Briefings in Bioinformatics 2025. Built from the paper's description.
    """

    method = "danet"
    Options = DANetOptions

    def _towers(self, n_features: int, encoder: Encoder | None) -> TwoTowers:
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
