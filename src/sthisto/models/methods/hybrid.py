"""Retrieval and regression together: what the aligned bank says and what a linear map says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sthisto._utils.validate import check_positive
from sthisto.models.combined import CombinedModel, Member
from sthisto.models.methods.danet import DANetOptions


@dataclass(frozen=True)
class HybridOptions(DANetOptions):
    """Options of `Hybrid`: those of `DANet`, with a frozen encoder, and more.

    Parameters
    ----------
    n_models
        DANets, from consecutive seeds.
    n_components
        Principal components of the features that ridge keeps.
    ridge_weight
        Share of ridge in the prediction; the DANets share the rest.
    colors, within_sections
        Options of `Ridge`.
    residuals
        Every second DANet, and a second ridge, learn Pearson residuals, where the others learn log1p of counts. Has
        no effect on another target.
    """

    n_models: int = 6
    n_components: int = 256
    ridge_weight: float = 0.5
    colors: bool = True
    within_sections: bool = True
    residuals: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.n_models, name="n_models")
        if self.finetune:
            msg = "method='hybrid' needs the frozen encoder, which DANet and ridge share; leave out finetune=True."
            raise ValueError(msg)
        if not 0 < self.ridge_weight < 1:
            msg = f"`ridge_weight` must be between 0 and 1, found {self.ridge_weight}."
            raise ValueError(msg)


_OF_RIDGE = ("n_components", "colors", "within_sections")


class Hybrid(CombinedModel):
    """Six DANets and ridge regression on the same features, half and half: the recommended setting.

    Retrieval and regression err differently. By default both look at the patch and at twice and four times its width;
    ridge also looks at the colors, learns from differences within sections alone, and learns from the spots that
    choose DANet's epoch. Of counts, half of the models learn log1p and half Pearson residuals, from which the spot's
    depth is taken: the prediction, on the scale of log1p, then follows depth half as much.

    The setting was chosen by cross-validation over the sections of each training set of README's splits, by the
    residual score among those that lose no raw score to ridge on the patch; four of five sets prefer it, the fifth
    learning residuals alone: ``python benchmarks/methods.py --inside``.
    """

    method = "hybrid"
    label = "Hybrid"
    Options = HybridOptions
    uses_residuals = True
    default_context = (1.0, 2.0, 4.0)

    def _plan(self) -> Sequence[Member]:
        options = asdict(self.options)
        own = {name: options.pop(name) for name in ("n_models", "ridge_weight", "residuals", *_OF_RIDGE)}
        options["expression_components"] = None  # the average is projected
        ridge = {name: own[name] for name in _OF_RIDGE}
        scales = (False, True) if own["residuals"] and self.normalization.get("target") == "log1p" else (False,)
        n_models, share = own["n_models"], own["ridge_weight"]
        danets = [Member("danet", options, (1 - share) / n_models, scales[i % len(scales)]) for i in range(n_models)]
        return danets + [Member("ridge", ridge, share / len(scales), scale) for scale in scales]
