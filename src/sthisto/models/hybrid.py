"""Retrieval and regression together: what the aligned bank says and what a linear map says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sthisto._validate import check_positive
from sthisto.models._combine import CombinedModel
from sthisto.models.danet import DANetOptions


@dataclass(frozen=True)
class HybridOptions(DANetOptions):
    """Options of `Hybrid`: those of `DANet`, with a frozen encoder, and three more.

    Parameters
    ----------
    n_models
        DANets, from consecutive seeds.
    n_components
        Principal components of the features that ridge keeps.
    ridge_weight
        Share of ridge in the prediction; the DANets share the rest.
    """

    n_models: int = 5
    n_components: int = 256
    ridge_weight: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self.n_models, name="n_models")
        if self.finetune:
            msg = "method='hybrid' needs the frozen encoder, which DANet and ridge share; leave out finetune=True."
            raise ValueError(msg)
        if not 0 < self.ridge_weight < 1:
            msg = f"`ridge_weight` must be between 0 and 1, found {self.ridge_weight}."
            raise ValueError(msg)


class Hybrid(CombinedModel):
    """Five DANets and ridge regression on the same features, half and half: the recommended setting.

    Retrieval and regression err differently. Ridge also learns from the spots that choose DANet's epoch. By default
    it looks at the patch and at twice and four times its width.

    Chosen by fitting one section of the HER2-positive tumours and predicting another of the same patient (C2 -> C3,
    C3 -> C4, C4 -> C2, A1 -> A2, A2 -> A1; 785 genes, efficientnet_lite0), mean residual PCC / raw PCC:

    ======================== ============== =============
    log1p target             patch alone    three widths
    ======================== ============== =============
    ridge                    0.045 / 0.071  0.060 / 0.088
    one DANet                0.027 / 0.062  0.053 / 0.081
    two DANets               0.043 / 0.076  0.064 / 0.093
    two DANets and ridge     0.048 / 0.080  0.068 / 0.098
    ======================== ============== =============

    With ``target="pearson_residuals"`` the last is 0.083 / 0.070: more of the residual score, and a little less of
    the raw one than ridge on the patch alone. The default target loses neither. These five sections are also those
    that README's table tests it on, so that its lead within a patient is somewhat too large there; on another patient
    it leads nothing.
    """

    method = "hybrid"
    Options = HybridOptions
    default_context = (1.0, 2.0, 4.0)

    def _plan(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        own = ("n_models", "n_components", "ridge_weight")
        danet = {name: value for name, value in asdict(self.options).items() if name not in own}
        return [("danet", danet)] * self.options.n_models + [("ridge", {"n_components": self.options.n_components})]

    def _weights(self) -> np.ndarray:
        n, ridge = self.options.n_models, self.options.ridge_weight
        return np.append(np.full(n, (1 - ridge) / n), ridge)
