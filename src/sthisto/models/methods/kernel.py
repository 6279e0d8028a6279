"""Kernel regression on texture, early maps of an encoder and the tissue's border."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from sthisto._utils.validate import check_choice, check_positive
from sthisto.models.block_model import BlockModel, BlockOptions
from sthisto.models.kernels import KernelName


@dataclass(frozen=True)
class KernelOptions(BlockOptions):
    """Options of `Kernel`.

    Parameters
    ----------
    features
        Kinds of features, of "texture", "encoder" and "border". With ``image_encoder="texture"``, texture stands in for
        "encoder".
    texture_context
        Widths over which texture is measured, relative to the patch. Those of the encoder are `context` of `tl.fit`.
    expression_components
        Numbers of principal components of the training targets that the answer is projected on; the mean over several.
        None: no projection.
    log1p_share
        Share of a fit on log1p expression; the rest is of a fit on Pearson residuals.
    kernel
        "rbf", or "linear".
    alphas
        Strengths, times the trace of the kernel; their predictions are averaged.
    """

    kernel: KernelName = "rbf"
    alphas: Sequence[float] = (1e-3, 1e-2, 1e-1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.kernel, get_args(KernelName), name="kernel")
        if not self.alphas:
            msg = "`alphas` is empty; at least one strength is needed."
            raise ValueError(msg)
        for alpha in self.alphas:
            check_positive(alpha, name="alphas")


class Kernel(BlockModel):
    """Kernel ridge regression of Pearson residuals on standardized blocks of features, projected on few components.

    One kernel for each block is averaged: texture at four widths, an early map of the encoder at three, and the
    distance to the border of the tissue. Features, kernel and targets are centered by section. Predictions of three
    strengths and of three numbers of components are averaged, so that nothing is chosen by cross-validation inside
    a patient.
    """

    method = "kernel"
    label = "Kernel"
    Options = KernelOptions

    @property
    def learner_weights(self) -> dict[str, float]:
        """The kernel alone."""
        return {"kernel": 1.0}

    @property
    def kernel_name(self) -> KernelName:
        """The kernel."""
        name: KernelName = self.options.kernel
        return name

    @property
    def alphas(self) -> Sequence[float]:
        """Strengths of the regression."""
        alphas: Sequence[float] = self.options.alphas
        return alphas
