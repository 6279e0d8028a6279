"""Options that several methods share. A method's own options are a frozen dataclass that derives from these.

Fields stand in the order of the bases from the last to the first, then come the class's own; a field that a class
names again keeps its place and takes the new default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from sthisto._utils.arguments import check_fields
from sthisto._utils.validate import check_choice, check_positive
from sthisto.models.low_rank import check_components
from sthisto.models.retrieval.bank import Aggregation
from sthisto.models.training.augment import check_stain_jitter

__all__ = [
    "AlignmentOptions",
    "BatchOptions",
    "EpochOptions",
    "FinetuneOptions",
    "MethodOptions",
    "NoOptions",
    "OptimizerOptions",
    "ParallelOptions",
    "PrecisionOptions",
    "RetrievalOptions",
    "TrainingOptions",
]


@dataclass(frozen=True)
class MethodOptions:
    """Base of options. A `__post_init__` that checks values calls that of its base first.

    Parameters
    ----------
    expression_components
        Numbers of principal components of the training expression, centered by section, that predictions are projected
        on; the mean over several. None: no projection.
    """

    expression_components: int | Sequence[int] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check types and bounds of all values, those of a class that derives from this one too."""
        check_fields(type(self), vars(self))
        check_components(self.expression_components)


@dataclass(frozen=True)
class NoOptions(MethodOptions):
    """The options of a method that has none of its own."""


@dataclass(frozen=True)
class FinetuneOptions(MethodOptions):
    """Options of methods that can train the image encoder.

    Parameters
    ----------
    finetune
        Whether the image encoder is trained too. Frozen, its features are computed once.
    augment
        Whether patches are shown under random symmetries while the encoder is trained; never at prediction.
    stain_jitter
        Spread of the stains' strength in augmentation; 0 leaves colors as they are.
    """

    finetune: bool = False
    augment: bool = True
    stain_jitter: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_stain_jitter(self.stain_jitter, trained=self.finetune and self.augment)


@dataclass(frozen=True)
class AlignmentOptions(MethodOptions):
    """Options of the contrastive alignment of image and expression.

    Parameters
    ----------
    objective
        "smoothed": targets are the similarities within each modality; "clip": the plain contrastive loss.
    temperature
        Divisor of the similarities in the loss.
    batch_correction
        "harmony" removes section batch effects from the principal components of the expression that the gene side
        sees (needs harmonypy); what is retrieved stays as measured.
    """

    objective: Literal["smoothed", "clip"] = "smoothed"
    temperature: float = 1.0
    batch_correction: Literal["harmony"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.objective, ("smoothed", "clip"), name="objective")
        check_positive(self.temperature, name="temperature")
        check_choice(self.batch_correction, (None, "harmony"), name="batch_correction")


@dataclass(frozen=True)
class RetrievalOptions(MethodOptions):
    """Options of methods that average training spots.

    Parameters
    ----------
    k
        Number of training spots that a prediction averages.
    aggregation
        "average", "weighted", or "simple" (the nearest alone).
    """

    k: int = 100
    aggregation: Aggregation = "average"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.k, name="k")
        check_choice(self.aggregation, get_args(Aggregation), name="aggregation")


@dataclass(frozen=True)
class EpochOptions(MethodOptions):
    """How long a model is trained.

    Parameters
    ----------
    max_epochs
        Largest number of epochs.
    patience
        Epochs without a lower validation loss after which training stops.
    """

    max_epochs: int = 50
    patience: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.max_epochs, name="max_epochs")
        check_positive(self.patience, name="patience")


@dataclass(frozen=True)
class BatchOptions(MethodOptions):
    """How many spots a model is trained on at once.

    Parameters
    ----------
    batch_size
        Spots in a batch, over all processes.
    """

    batch_size: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.batch_size, name="batch_size")


@dataclass(frozen=True)
class OptimizerOptions(MethodOptions):
    """Options of AdamW.

    Parameters
    ----------
    learning_rate, weight_decay
        Step size and decoupled weight decay.
    """

    learning_rate: float = 1e-3
    weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.learning_rate, name="learning_rate")


@dataclass(frozen=True)
class SectionBatchOptions(MethodOptions):
    """What makes a batch.

    Parameters
    ----------
    batch_by
        "mixed" draws batches from all sections, "section" makes every section one batch.
    """

    batch_by: Literal["mixed", "section"] = "mixed"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.batch_by, ("mixed", "section"), name="batch_by")


@dataclass(frozen=True)
class PrecisionOptions(MethodOptions):
    """Precision of the training.

    Parameters
    ----------
    precision
        A precision of Lightning Fabric, such as "32-true" or "bf16-mixed".
    """

    precision: str = "32-true"


@dataclass(frozen=True)
class ParallelOptions(PrecisionOptions):
    """Precision, and the devices that share a batch.

    Parameters
    ----------
    precision
        A precision of Lightning Fabric, such as "32-true" or "bf16-mixed".
    devices, num_nodes, strategy
        Number of devices per node, number of nodes, and strategy of Lightning Fabric.
    """

    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"


@dataclass(frozen=True)
class TrainingOptions(ParallelOptions, SectionBatchOptions, OptimizerOptions, BatchOptions, EpochOptions):
    """All options of the training loop.

    Parameters
    ----------
    max_epochs
        Largest number of epochs.
    patience
        Epochs without a lower validation loss after which training stops.
    batch_size
        Spots in a batch, over all processes.
    learning_rate, weight_decay
        AdamW's step size and decoupled weight decay.
    batch_by
        "mixed" draws batches from all sections, "section" makes every section one batch.
    precision, devices, num_nodes, strategy
        Precision, number of devices per node, number of nodes, and strategy of Lightning Fabric.
    """
