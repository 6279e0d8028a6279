"""BLEEP: bi-modal contrastive learning of image and expression (Xie et al., NeurIPS 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from sthisto._utils.validate import check_choice
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.retrieval.contrastive import ContrastiveModel, TwoTowers
from sthisto.models.training.augment import check_stain_jitter
from sthisto.nn import ResidualMLP


@dataclass(frozen=True)
class BLEEPOptions:
    """Options of `BLEEP`.

    The defaults are the paper's for GSE240429, but for the frozen encoder, and for smaller batches over fewer epochs,
    as for `DANet`. The paper's own: ``image_encoder="resnet50", finetune=True, batch_size=512, max_epochs=150``.

    Parameters
    ----------
    finetune
        Whether the image encoder is trained too, as published. Frozen, its features are computed once.
    augment
        Whether patches are shown under random symmetries while the encoder is trained; never at prediction.
    stain_jitter
        Spread of the stains' strength in augmentation; 0 leaves colors as they are.
    objective
        "smoothed" is the paper's loss, whose targets are the similarities within each modality; "clip" the plain one.
    temperature
        Of the loss.
    batch_correction
        "harmony" takes what only tells training sections apart out of the principal components of the expression that
        the gene side sees (needs harmonypy); what is retrieved stays as measured.
    k, aggregation
        Training spots that a prediction averages, and how: "average", "weighted", "simple" (the nearest alone).
    embedding_dim, dropout
        Of the projection.
    max_epochs, patience, batch_size, learning_rate, weight_decay, batch_by
        Of the training. It stops after `patience` epochs that did not improve the validation loss.
    precision, devices, num_nodes, strategy
        As Lightning Fabric takes them.
    """

    finetune: bool = False
    augment: bool = True
    stain_jitter: float = 0.0
    objective: Literal["smoothed", "clip"] = "smoothed"
    temperature: float = 1.0
    batch_correction: Literal["harmony"] | None = None
    k: int = 50
    aggregation: Literal["average", "weighted", "simple"] = "average"
    embedding_dim: int = 256
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
        check_choice(self.objective, ("smoothed", "clip"), name="objective")
        check_choice(self.batch_correction, (None, "harmony"), name="batch_correction")
        check_choice(self.aggregation, ("average", "weighted", "simple"), name="aggregation")


class BLEEP(ContrastiveModel):
    """The expression itself against image features, perceptron projections, contrastive alignment, top-K retrieval.

    Each side is one projection to 256 dimensions: linear, then GELU, linear and dropout with a residual, then layer
    norm. With the paper's ResNet-50 (2048 features) and 3467 genes the two have 590,848 and 954,112 parameters.

    References
    ----------
    Xie et al., Spatially resolved gene expression prediction from histology images via bi-modal contrastive learning,
    NeurIPS 2023, doi:10.48550/arXiv.2306.01859. Built from the paper's description.
    """

    method = "bleep"
    Options = BLEEPOptions

    def _towers(self, n_features: int, encoder: Encoder | None) -> TwoTowers:
        o = self.options
        return TwoTowers(
            image_head=ResidualMLP(n_features, o.embedding_dim, dropout=o.dropout),
            gene_encoder=nn.Identity(),
            gene_head=ResidualMLP(len(self.genes), o.embedding_dim, dropout=o.dropout),
            encoder=encoder,
        )
