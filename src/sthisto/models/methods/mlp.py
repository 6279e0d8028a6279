"""Small perceptrons on texture, early maps of an encoder and the tissue's border."""

from __future__ import annotations

from dataclasses import dataclass, field

from sthisto._utils.validate import check_positive
from sthisto.models.block_model import BlockModel, BlockOptions
from sthisto.models.perceptrons import PerceptronSettings


@dataclass(frozen=True)
class MLPOptions(BlockOptions):
    """Options of `MLP`.

    Parameters
    ----------
    features
        Kinds of features, of "texture", "encoder" and "border". With ``image_encoder="texture"``, texture stands in for
        "encoder".
    texture_context
        Widths over which texture is measured, relative to the patch. Those of the encoder are `context` of `tl.fit`.
    expression_components
        Number of principal components of the training targets whose scores the networks learn; of several, the largest.
        None: all.
    log1p_share
        Share of a fit on log1p expression; the rest is of a fit on Pearson residuals.
    n_models
        Networks, from consecutive seeds, that are averaged.
    hidden, input_dropout, dropout
        Units of the hidden layer, and dropout before and after it.
    max_epochs, averaged_epochs
        Epochs, and over how many of the last ones weights are averaged. No epoch is chosen.
    batch_size, learning_rate, weight_decay
        Spots per batch, and AdamW's learning rate and weight decay.
    """

    expression_components: int | None = field(default=12, kw_only=True)
    n_models: int = 5
    hidden: int = 128
    input_dropout: float = 0.2
    dropout: float = 0.5
    max_epochs: int = 30
    averaged_epochs: int = 15
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_models", "hidden", "max_epochs", "averaged_epochs", "batch_size", "learning_rate"):
            check_positive(getattr(self, name), name=name)
        for name in ("input_dropout", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                msg = f"`{name}` must be at least 0 and below 1, found {getattr(self, name)!r}."
                raise ValueError(msg)


class MLP(BlockModel):
    """Five perceptrons with one hidden layer, trained at once on the scores of the targets' top components.

    Features are standardized as for `Kernel`. Weights are averaged over the last epochs.
    """

    method = "mlp"
    label = "MLP"
    Options = MLPOptions

    @property
    def learner_weights(self) -> dict[str, float]:
        """The networks alone."""
        return {"mlp": 1.0}

    @property
    def perceptron_settings(self) -> PerceptronSettings:
        """How the networks are made and trained."""
        o = self.options
        return PerceptronSettings(
            o.n_models,
            o.hidden,
            o.input_dropout,
            o.dropout,
            o.max_epochs,
            o.averaged_epochs,
            o.batch_size,
            o.learning_rate,
            o.weight_decay,
        )
