"""The recommended setting: kernel regression and half the weight of five small perceptrons."""

from __future__ import annotations

from dataclasses import dataclass

from sthisto._utils.validate import check_positive
from sthisto.models.block_model import BlockModel
from sthisto.models.kernels import KernelName
from sthisto.models.methods.kernel import KernelOptions
from sthisto.models.perceptrons import PerceptronSettings


@dataclass(frozen=True)
class RecommendedOptions(KernelOptions):
    """Options of `Recommended`.

    Parameters
    ----------
    features
        Kinds of features, of "texture", "encoder" and "border". With ``image_encoder="texture"``, texture stands in for
        "encoder".
    texture_context
        Widths over which texture is measured, relative to the patch. Those of the encoder are `context` of `tl.fit`.
    expression_components
        Numbers of principal components of the training targets that the answer is projected on; the mean over several.
        The perceptrons learn the largest. None: no projection.
    log1p_share
        Share of a fit on log1p expression, which keeps the raw score; the rest is of a fit on Pearson residuals.
    kernel, alphas
        Options of `Kernel`.
    mlp_weight
        Weight of the perceptrons, where that of the kernel is 1; 0 leaves them out.
    n_models
        Perceptrons, from consecutive seeds.
    """

    log1p_share: float = 0.25
    mlp_weight: float = 0.5
    n_models: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.n_models, name="n_models")
        if self.mlp_weight < 0:
            msg = f"`mlp_weight` must not be negative, found {self.mlp_weight!r}."
            raise ValueError(msg)


class Recommended(BlockModel):
    """Kernel regression plus half a weight of five small perceptrons, three quarters of it fitted on Pearson residuals.

    The settings were decided on another study of the same and of other sections, not chosen by their scores here.
    """

    method = "recommended"
    label = "Recommended"
    Options = RecommendedOptions

    @property
    def learner_weights(self) -> dict[str, float]:
        """The kernel, and what the perceptrons weigh beside it."""
        weight = self.options.mlp_weight
        return {"kernel": 1.0, "mlp": weight} if weight else {"kernel": 1.0}

    @property
    def kernel_name(self) -> KernelName:
        """The kernel."""
        name: KernelName = self.options.kernel
        return name

    @property
    def alphas(self) -> tuple[float, ...]:
        """Strengths of the regression."""
        return tuple(self.options.alphas)

    @property
    def perceptron_settings(self) -> PerceptronSettings:
        """How the perceptrons are made and trained."""
        return PerceptronSettings(n_models=self.options.n_models)
