"""BLEEP: bi-modal contrastive learning of image and expression (Xie et al., NeurIPS 2023)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sthisto._utils.validate import check_positive
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.options import AlignmentOptions, FinetuneOptions, MethodOptions, RetrievalOptions, TrainingOptions
from sthisto.models.retrieval.contrastive import ContrastiveModel, TwoTowers
from sthisto.nn import ResidualMLP


@dataclass(frozen=True)
class _Projection(MethodOptions):
    embedding_dim: int = 256
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.embedding_dim, name="embedding_dim")


@dataclass(frozen=True)
class BLEEPOptions(TrainingOptions, _Projection, RetrievalOptions, AlignmentOptions, FinetuneOptions):
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
        Temperature of the contrastive loss.
    batch_correction
        "harmony" removes section batch effects from the principal components of the expression that
        the gene side sees (needs harmonypy); what is retrieved stays as measured.
    k, aggregation
        Training spots that a prediction averages, and how: "average", "weighted", "simple" (the nearest alone).
    embedding_dim, dropout
        Width and dropout of the projection heads.
    max_epochs, patience, batch_size, learning_rate, weight_decay, batch_by
        Length of the training, batches and AdamW. Training stops after `patience` epochs that did not improve the
        validation loss.
    precision, devices, num_nodes, strategy
        Arguments of `lightning.fabric.Fabric`.
    """

    k: int = 50


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
    label = "BLEEP"
    Options = BLEEPOptions

    def towers(self, n_features: int, encoder: Encoder | None) -> TwoTowers:
        """Return two perceptron projections."""
        o = self.options
        return TwoTowers(
            image_head=ResidualMLP(n_features, o.embedding_dim, dropout=o.dropout),
            gene_encoder=nn.Identity(),
            gene_head=ResidualMLP(len(self.genes), o.embedding_dim, dropout=o.dropout),
            encoder=encoder,
        )
