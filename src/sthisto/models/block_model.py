"""Methods on standardized blocks of features that answer in the few components in which the training targets vary."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sthisto._utils.validate import check_positive, listed
from sthisto.models.base import ExpressionModel, stack
from sthisto.models.blocks import (
    FEWEST_SPOTS,
    KINDS,
    BlockLayout,
    SectionFeatures,
    Standard,
    check_kinds,
    section_features,
    standardize,
    used_kinds,
)
from sthisto.models.data import Exclude, Prediction, SectionInput, TrainingSection
from sthisto.models.kernels import KernelName, block_kernel, center_columns, fit_kernel, inversion_bytes
from sthisto.models.landmarks import EXACT_SPOTS, choose_landmarks, fit_landmarks
from sthisto.models.left_out import amplitude_and_errors, column_sd, left_out_together, spread_of_nearest
from sthisto.models.low_rank import Components, centered_by, check_components, fit_components
from sthisto.models.options import MethodOptions
from sthisto.models.perceptrons import (
    Perceptrons,
    PerceptronSettings,
    fit_perceptrons,
    load_perceptrons,
    perceptron_state,
    predict_perceptrons,
)

_ENTRIES_AT_ONCE: Final = 10_000_000
_TINY: Final = 1e-12
_SHARES_OFF: Final = 1e-6


@dataclass(frozen=True)
class BlockOptions(MethodOptions):
    """Options of methods on blocks of features.

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
        Share of a fit on log1p expression in the prediction; the rest is of a fit on Pearson residuals. Has no effect
        on targets other than log1p of counts.
    """

    features: Sequence[str] = KINDS
    texture_context: Sequence[float] = (1.0, 2.0, 4.0, 8.0)
    expression_components: int | Sequence[int] | None = field(default=(3, 5, 8, 12), kw_only=True)
    log1p_share: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kinds(self.features)
        for width in self.texture_context:
            check_positive(width, name="texture_context")
        if not 0 <= self.log1p_share <= 1:
            msg = f"`log1p_share` must be between 0 and 1, found {self.log1p_share!r}."
            raise ValueError(msg)


class BlockModel(ExpressionModel):
    """Base of `kernel`, `mlp` and `recommended`.

    Above 20,000 training spots, 3,000 of them, drawn at random, stand for all in the kernel (Nyström's approximation)
    and in the spread.

    Features are standardized within each section, so that staining does not count. The targets are Pearson residuals
    centered by section (the expression itself where there are no counts), and the answer is a sum of their top
    principal components. A subclass says in `learner_weights` what learns, and what each weighs. All of them are
    divided by their root mean square over the training spots before they are averaged.

    The prediction is brought to the expression's scale gene by gene: the training mean, plus the standardized
    prediction times the gene's standard deviation within sections times the correlation of measured and predicted
    expression when whole training sections are left out, at least 0.05. Where fewer than 20 spots would be left, bands
    of each section are left out instead. The spread of a prediction is the root mean square of the errors of the 100
    most similar training spots when they are left out; a model of a single training spot gives none.
    """

    Options: ClassVar[type] = BlockOptions
    uses_residuals = True
    rates_confidence = True
    projects_itself = True
    default_context = (1.0, 2.0, 4.0)
    default_patch_um = 77.0
    default_encoder = "efficientnet_lite0"
    default_reduction = 8

    _networks: Perceptrons | None = None

    @property
    @abstractmethod
    def learner_weights(self) -> dict[str, float]:
        """Weight of "kernel" and of "mlp"."""

    @property
    def perceptron_settings(self) -> PerceptronSettings:
        """How the perceptrons are trained."""
        return PerceptronSettings()

    @property
    def kernel_name(self) -> KernelName:
        """The kernel."""
        return "rbf"

    @property
    def alphas(self) -> Sequence[float]:
        """Strengths of the kernel regression."""
        return (1e-3, 1e-2, 1e-1)

    @classmethod
    def needs_encoder(cls, options: BlockOptions) -> bool:
        """Return whether an image encoder is used with these options."""
        return "encoder" in options.features

    @classmethod
    def widest(cls, options: BlockOptions, context: Sequence[float]) -> float:
        """Return the widest view, relative to the patch."""
        texture = options.texture_context if "texture" in options.features else ()
        return max((*context, *texture))

    def _features(self, section: SectionInput) -> SectionFeatures:
        return section_features(
            section,
            used_kinds(self.options.features, self._encoder),
            encoder=self._encoder,
            context=self.patch.context,
            texture_context=self.options.texture_context,
        )

    def fit_memory(self, n_spots: int) -> int:
        """Return the bytes of the kernels between all training spots, 0 where landmarks bound them."""
        return inversion_bytes(n_spots) if n_spots <= EXACT_SPOTS else 0

    def fit_sections(self, sections: Sequence[TrainingSection], seed: int) -> None:
        """Learn from the training spots of all sections."""
        features = [self._features(section.inputs) for section in sections]
        rows = [section.train for section in sections]
        self._layout = features[0].layout
        raw = np.concatenate([f.values[r] for f, r in zip(features, rows, strict=True)])
        self._usual = Standard.of(raw)
        x = np.concatenate([standardize(f, self._usual)[r] for f, r in zip(features, rows, strict=True)])
        kept = choose_landmarks(len(x), seed)
        self._x = x[kept]
        group = np.repeat(np.arange(len(sections)), [len(r) for r in rows])
        folds = left_out_together(group, np.concatenate([s.inputs.positions[s.train] for s in sections]))
        expression = stack(sections, "train")
        targets = [centered_by(values, group) for values in self._targets(sections, expression)]
        numbers = check_components(self.options.expression_components)
        self._components = [fit_components(target, numbers) for target in targets]
        inside, left_out = self._learn(x, kept, targets, group, folds, seed)
        self._calibrate(expression, group, folds, inside, left_out, kept)

    def _targets(self, sections: Sequence[TrainingSection], expression: np.ndarray) -> list[np.ndarray]:
        residuals = [section.residuals for section in sections]
        share = self.options.log1p_share
        if any(values is None for values in residuals) or share == 1:
            self._shares: tuple[float, ...] = (1.0,)
            return [expression]
        of_residuals = np.concatenate([v[s.train] for v, s in zip(residuals, sections, strict=True) if v is not None])
        self._shares = (1 - share, share) if share else (1.0,)
        return [of_residuals, expression] if share else [of_residuals]

    def _learn(
        self,
        x: np.ndarray,
        kept: np.ndarray,
        targets: Sequence[np.ndarray],
        group: np.ndarray,
        folds: np.ndarray,
        seed: int,
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Fit the learners; return scores of the training spots, and those left out, (n, n_components) a target."""
        if len(kept) < len(x):
            fitted, left_out = self._fit_landmarks(x, kept, targets, group, folds)
        else:
            fitted, left_out = self._fit_exactly(targets, group, folds)
        self._powers: dict[str, np.ndarray] = {}
        if "kernel" in self.learner_weights:
            self._powers["kernel"] = np.array([_rms(scores) for scores in fitted])
        if "mlp" in self.learner_weights:
            scores = [t @ c.vectors for t, c in zip(targets, self._components, strict=True)]
            self._networks, losses = fit_perceptrons(x, scores, self.perceptron_settings, seed=seed)
            epochs = np.arange(len(losses))
            self.history = pd.DataFrame({"epoch": epochs, "train_loss": losses, "val_loss": np.nan})
            predicted = predict_perceptrons(self._networks, x, len(targets))
            self._powers["mlp"] = np.array([_rms(part) for part in predicted])
        inside = self._combined(fitted, x)
        self._gene_sd = self._gene_spread(inside)
        return inside, left_out

    def _fit_exactly(
        self, targets: Sequence[np.ndarray], group: np.ndarray, folds: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Fit the kernel between all training spots; return the scores as `_learn` does."""
        kernel = block_kernel(self._x, self._x, self._layout, self.kernel_name)
        self._row_mean = kernel.mean(axis=0)
        kernel = center_columns(center_columns(kernel, group).T, group).T
        fits = fit_kernel(kernel, targets, self._components, alphas=self.alphas, folds=folds)
        self._coefficients = [_within(fit.coefficients, group) for fit in fits]
        return [kernel @ coefficients for coefficients in self._coefficients], [fit.scores for fit in fits]

    def _fit_landmarks(
        self, x: np.ndarray, kept: np.ndarray, targets: Sequence[np.ndarray], group: np.ndarray, folds: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Fit the kernel of all training spots with the kept ones; return the scores as `_learn` does."""
        fit = fit_landmarks(
            x,
            kept,
            self._layout,
            self.kernel_name,
            targets,
            self._components,
            alphas=self.alphas,
            groups=group,
            folds=folds,
        )
        self._row_mean = fit.row_mean
        self._coefficients = [one.coefficients for one in fit.targets]
        return fit.fitted, [one.scores for one in fit.targets]

    def _gene_spread(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Return the standard deviation of each target's genes, (n_targets, n_genes)."""
        return np.stack([column_sd(part @ c.vectors.T) for part, c in zip(scores, self._components, strict=True)])

    def _combined(self, of_kernel: Sequence[np.ndarray], x: np.ndarray) -> list[np.ndarray]:
        """Return the weighted sum of the kernel's scores and those of the networks, (n, n_components) each target."""
        total = [np.zeros((len(x), c.vectors.shape[1])) for c in self._components]
        weights = self.learner_weights
        if "kernel" in weights:
            for i, scores in enumerate(of_kernel):
                total[i] += weights["kernel"] * scores / self._powers["kernel"][i]
        if self._networks is not None:
            for i, part in enumerate(predict_perceptrons(self._networks, x, len(total))):
                total[i] += weights["mlp"] * part / self._powers["mlp"][i]
        return total

    def _standard_genes(self, scores: Sequence[np.ndarray], sd: np.ndarray) -> np.ndarray:
        """Return the mean over targets of predictions standardized gene by gene, (n, n_genes)."""
        parts = [
            share * (part @ c.vectors.T) / np.maximum(spread, _TINY)
            for share, part, c, spread in zip(self._shares, scores, self._components, sd, strict=True)
        ]
        return np.asarray(np.sum(parts, axis=0))

    def _calibrate(
        self,
        expression: np.ndarray,
        group: np.ndarray,
        folds: np.ndarray,
        inside: Sequence[np.ndarray],
        left_out: Sequence[np.ndarray],
        kept: np.ndarray,
    ) -> None:
        """Keep what brings predictions to the expression's scale, and the errors of the training spots left out.

        `expression` is (n, n_genes), `group` and `folds` are (n,), `inside` and `left_out` scores, (n, n_components) a
        target; `kept` are the rows of the landmarks, (n_landmarks,).
        """
        self._mean = expression.mean(axis=0, dtype=np.float64)
        self._total_sd = np.maximum(column_sd(self._standard_genes(inside, self._gene_sd)), _TINY)
        predicted = self._standard_genes(left_out, self._gene_spread(left_out))
        self._amplitude, errors = amplitude_and_errors(expression, predicted, group, folds)
        self._squared_error = np.square(errors[kept]).astype(np.float32)

    def predict_section(self, section: SectionInput, exclude: Exclude | None) -> Prediction:
        """Predict every spot of a section; nothing is retrieved, so nothing is excluded."""
        features = self._features(section)
        x = standardize(features, self._usual)
        at_once = max(1, _ENTRIES_AT_ONCE // len(self._x))
        parts = [self._scores_of(x[i : i + at_once]) for i in range(0, len(x), at_once)]
        scores = [np.concatenate([part[0][i] for part in parts]) for i in range(len(self._components))]
        if len(x) >= FEWEST_SPOTS:
            scores = [values - values.mean(axis=0) for values in scores]
        standard = self._standard_genes(scores, self._gene_sd) / self._total_sd
        expression = self._mean + standard * self._amplitude
        return Prediction(
            expression=expression.astype(np.float32),
            sd=np.concatenate([part[1] for part in parts]) if len(self._x) > 1 else None,
            seen=self.seen(features.fingerprint),
        )

    def _scores_of(self, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Return scores for each target and spread of some spots, (n, n_features) standardized within the section."""
        kernel = block_kernel(x, self._x, self._layout, self.kernel_name)
        spread = spread_of_nearest(kernel, self._squared_error)
        combined = self._combined([(kernel - self._row_mean) @ one for one in self._coefficients], x)
        return combined, spread

    def appearance(self, section: SectionInput) -> Sequence[np.ndarray]:
        """Return the features of each kind, (n_spots, n) float32, not standardized; see `SectionFeatures.of_look`."""
        return self._features(section).of_look()

    def state(self) -> dict[str, Tensor]:
        """Return what was learned."""
        usual_mean, usual_sd = (value.numpy() for value in self._usual.tensors())
        arrays: dict[str, Any] = {
            "usual.mean": usual_mean,
            "usual.sd": usual_sd,
            "sizes": np.array(self._layout.sizes),
            "weights": np.array(self._layout.weights),
            "shares": np.array(self._shares),
            "row_mean": self._row_mean,
            "gene_sd": self._gene_sd,
            "total_sd": self._total_sd,
            "mean": self._mean,
            "amplitude": self._amplitude,
        }
        for name, power in self._powers.items():
            arrays[f"power.{name}"] = power
        for i, one in enumerate(self._components):
            arrays |= {f"vectors.{i}": one.vectors, f"share.{i}": one.share, f"coefficients.{i}": self._coefficients[i]}
        state = {name: torch.from_numpy(np.array(value, order="C")) for name, value in arrays.items()}
        if self._networks is not None:
            state |= {f"networks.{name}": value for name, value in perceptron_state(self._networks).items()}
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take what was learned."""
        arrays = {name: value.numpy() for name, value in state.items() if not name.startswith("networks.")}
        self._usual = Standard.from_tensors(state["usual.mean"], state["usual.sd"])
        self._layout = BlockLayout(tuple(arrays["sizes"].tolist()), tuple(arrays["weights"].tolist()))
        self._shares = tuple(arrays["shares"].tolist())
        self._row_mean, self._gene_sd, self._total_sd = (arrays[n] for n in ("row_mean", "gene_sd", "total_sd"))
        self._mean, self._amplitude = arrays["mean"], arrays["amplitude"]
        self._powers = {n.removeprefix("power."): arrays[n] for n in arrays if n.startswith("power.")}
        numbers = range(len(self._shares))
        self._components = [Components(arrays[f"vectors.{i}"], arrays[f"share.{i}"]) for i in numbers]
        self._coefficients = [arrays[f"coefficients.{i}"] for i in numbers]
        networks = {n.removeprefix("networks."): v for n, v in state.items() if n.startswith("networks.")}
        self._networks = load_perceptrons(networks, self.perceptron_settings) if networks else None
        self._check_values()

    def _check_values(self) -> None:
        """Raise ValueError for what no fit gives: negative spreads or weights, other blocks than the options name."""
        n_encoder = 0 if self._encoder is None else self._encoder.n_widths(len(self.patch.context))
        widths = {"texture": len(self.options.texture_context), "encoder": n_encoder, "border": 1}
        n_blocks = sum(widths[kind] for kind in used_kinds(self.options.features, self._encoder))
        sizes, weights = self._layout.sizes, np.array(self._layout.weights)
        n_features = len(self._usual.mean)
        if len(sizes) != n_blocks or len(weights) != n_blocks or min(sizes) < 1 or sum(sizes) != n_features:
            msg = f"{n_blocks} blocks of features were expected with {n_features} features, found those of {sizes}"
            raise ValueError(msg)
        positive = {"total_sd": self._total_sd, **{f"power.{name}": v for name, v in self._powers.items()}}
        not_negative = {"usual.sd": self._usual.sd, "gene_sd": self._gene_sd, "amplitude": self._amplitude}
        wrong = [name for name, v in positive.items() if not (v > 0).all()]
        wrong += [name for name, v in not_negative.items() if (v < 0).any()]
        for name, shares in (("weights", weights), ("shares", np.array(self._shares))):
            wrong += [name] if (shares < 0).any() or abs(shares.sum() - 1) > _SHARES_OFF else []
        if wrong:
            msg = f"{listed(wrong)} must be positive, and weights and shares of the sum one"
            raise ValueError(msg)

    def bank_state(self) -> dict[str, Tensor]:
        """Return the training spots: features within their section, and squared errors."""
        arrays = {"features": self._x, "squared_error": self._squared_error}
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}

    def load_bank_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the training spots."""
        self._x, self._squared_error = (state[name].numpy() for name in ("features", "squared_error"))
        if (self._squared_error < 0).any():
            msg = "squared errors must not be negative"
            raise ValueError(msg)


def _within(coefficients: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return (n, n_components) less the mean of each group: the kernel's columns need not be centered any more."""
    return centered_by(coefficients, group)


def _rms(scores: np.ndarray) -> float:
    return max(float(np.sqrt(np.square(scores).mean())), _TINY)
