"""What every method offers: fit, embed, predict, save. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from torch import nn

from sthisto._images.patches import PatchSpec
from sthisto._utils.arguments import checked
from sthisto._utils.checks import text
from sthisto._utils.targets import is_proportions
from sthisto._utils.validate import check_choice, listed
from sthisto.models.conformal import NOT_CALIBRATED, Calibration
from sthisto.models.contract import MethodContract
from sthisto.models.data import (
    Exclude,
    Prediction,
    SectionInput,
    TrainingSection,
    TrainingSpots,
    section_numbers,
)
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.encoders.features import extract
from sthisto.models.familiarity import Familiarity, fit_familiarity
from sthisto.models.low_rank import centered_by, check_components, fit_components
from sthisto.models.options import MethodOptions
from sthisto.models.pixels import pixel_blocks
from sthisto.models.simplex import to_simplex
from sthisto.models.torch_state import plain_torch
from sthisto.models.training.loop import Interrupted


class ExpressionModel(MethodContract):
    """Base of all methods.

    A method is one file: a frozen dataclass with its options, and a subclass that fills in `fit_sections`,
    `predict_section`, `state` and `load_state`. It gets sections as arrays and knows nothing of SpatialData. What a
    method can do beyond that is declared by the class attributes of `MethodContract`.

    Parameters
    ----------
    genes
        The modeled genes; their order is part of the model.
    patch
        The patches that the model is fitted on.
    options
        An instance of the method's `Options`.
    encoder
        The image encoder, for methods that use one.
    normalization
        Record of the scale of the expression, kept with the model.

    Attributes
    ----------
    training_sections
        Names of the sections that it was fitted on.
    training_spots
        The training and validation spots, as the model recognizes them.
    history
        One row an epoch (epoch, train_loss, val_loss); empty for methods without epochs.
    depth_knots
        Quantiles of the training spots' log total counts: the knots of the spline by which scores are also given
        adjusted for depth. Empty where the expression was no counts.
    siblings
        (n_genes, n_components) float32 principal components of the training residuals, by which `tl.evaluate` predicts
        genes from each other. Without components where the expression was no counts.
    genes_rule
        How the genes were chosen, kept with the model and with its scores; "" where nobody said.
    familiarity
        What the confidence of a prediction follows from; None where there was no second spot to compare with, and for
        models of 0.1.
    calibration
        Errors on calibration spots, from which intervals follow; None where there were no such spots.
    projection, projection_mean
        (n_genes, n_components) and (n_genes,) float32, by the option `expression_components`: predictions less the mean
        are projected by W Wᵀ. No column: they are left as they are.
    passport
        One row per gene: what was predicted of it on held-out groups, and the verdict on it; None until
        `sthisto.tl.assess` is called.
    facts
        What the model card says beside what is known of the model anyway: "patients" (of the training sections),
        "organ" and "license", where they were stated.
    seed
        Seed of the fit; None for a model of 0.1.
    path
        Folder that the model was last saved to or loaded from; None for a model that was neither.
    is_fitted
        Whether the model can predict. After an interrupted fit it can if an epoch was finished.
    """

    def __init__(
        self,
        genes: Sequence[str],
        *,
        patch: PatchSpec,
        options: Any = None,
        encoder: Encoder | None = None,
        normalization: Mapping[str, Any] | None = None,
    ) -> None:
        self.genes = tuple(str(gene) for gene in genes)
        if not self.genes:
            msg = "`genes` is empty: a model needs at least one gene."
            raise ValueError(msg)
        self.patch = patch
        self.options = self.Options() if options is None else options
        self._encoder = encoder
        self.normalization = dict(normalization or {})
        self.history = empty_history()
        self.is_fitted = False
        self.training_sections: tuple[str, ...] = ()
        self.genes_rule = ""
        self.passport: pd.DataFrame | None = None
        self.facts: dict[str, str | list[str]] = {}
        self.seed: int | None = None
        self.path: Path | None = None
        self.depth_knots: tuple[float, ...] = ()
        self.siblings = np.zeros((len(self.genes), 0), dtype=np.float32)
        self.projection = np.zeros((len(self.genes), 0), dtype=np.float32)
        self.projection_mean = np.zeros(len(self.genes), dtype=np.float32)
        self.training_spots = TrainingSpots.none()
        self.familiarity: Familiarity | None = None
        self.calibration: Calibration | None = None

    def __repr__(self) -> str:
        """Return method, genes, patch and training sections in a line."""
        width = f"{self.patch.size} px"
        if self.patch.um_per_px:
            width += f" ({self.patch.size * self.patch.um_per_px:.4g} µm)"
        fitted = f"fitted on {listed(self.training_sections)}" if self.training_sections else "not fitted"
        return f"<{type(self).__name__}: {len(self.genes)} genes, patches of {width}, {fitted}>"

    @property
    def is_projected(self) -> bool:
        """Whether predictions are projected on components of the training expression."""
        if self.projects_itself or not isinstance(self.options, MethodOptions):
            return False
        return bool(check_components(self.options.expression_components))

    @property
    def has_encoder(self) -> bool:
        """Whether the model was made with an image encoder."""
        return self._encoder is not None

    @property
    def encoder(self) -> Encoder:
        """The image encoder."""
        if self._encoder is None:
            msg = f"Method {self.method!r} was made without an image encoder."
            raise RuntimeError(msg)
        return self._encoder

    @property
    def parameters(self) -> dict[str, Any]:
        """The options as plain values."""
        return asdict(self.options)

    @plain_torch()
    def fit(self, sections: Sequence[TrainingSection], *, seed: int = 0) -> None:
        """Learn from the training spots of all sections.

        A method without epochs has none to choose: it learns from the validation spots too, so that all methods know
        the same spots.

        Raises
        ------
        ValueError
            There is no training spot, the expression of one is not finite, or it is not of the model's genes.
        KeyboardInterrupt
            Ctrl-C. After at least one epoch the model is that of the best one.
        """
        if not self.has_epochs:
            sections = [_without_validation(section) for section in sections]
        n_train = sum(len(section.train) for section in sections)
        if n_train == 0:
            msg = "There is no training spot. Check obs['sthisto_split'] and in_tissue."
            raise ValueError(msg)
        for section in sections:
            expected = (len(section.inputs), len(self.genes))
            if section.expression.shape != expected:
                msg = f"The expression of section {section.name!r} is {section.expression.shape}; expected {expected}."
                raise ValueError(msg)
            if not np.isfinite(section.expression[section.used]).all():
                msg = f"The expression of section {section.name!r} is not finite in a training spot."
                raise ValueError(msg)
        self.is_fitted = False
        self.passport, self.path, self.seed = None, None, int(seed)
        self.training_sections = tuple(section.name for section in sections)
        try:
            self.fit_sections(sections, seed)
        except Interrupted as stop:
            self.history = stop.history
            self._remember(sections, seed)
            raise KeyboardInterrupt from stop
        self._remember(sections, seed)

    def _remember(self, sections: Sequence[TrainingSection], seed: int) -> None:
        if self.is_projected:
            self._fit_projection(sections)
        self.training_spots = TrainingSpots.of(sections)
        if self.rates_confidence:
            seen = [[block[one.used] for block in self._looks(one.inputs)] for one in sections]
            self.familiarity = fit_familiarity(
                [np.concatenate(block) for block in zip(*seen, strict=True)],
                section=section_numbers(sections),
                patients=[one.patient for one in sections],
                positions=np.concatenate([one.inputs.positions[one.used] for one in sections]),
                seed=seed,
            )
        self.is_fitted = True

    def _fit_projection(self, sections: Sequence[TrainingSection]) -> None:
        numbers = check_components(self.options.expression_components)
        expression = stack(sections, "train")
        group = np.repeat(np.arange(len(sections)), [len(section.train) for section in sections])
        components = fit_components(centered_by(expression, group), numbers)
        columns = components.vectors * np.sqrt(components.share)
        n_missing = min(max(numbers), len(self.genes)) - columns.shape[1]  # of fewer spots than components
        self.projection = np.pad(columns, ((0, 0), (0, n_missing))).astype(np.float32)
        self.projection_mean = expression.mean(axis=0, dtype=np.float64).astype(np.float32)

    def _finished(self, expression: np.ndarray) -> np.ndarray:
        """Return (n_spots, n_genes) on its scale: projected if asked for, log1p at least 0, proportions as such."""
        if self.is_projected:
            centered = expression - self.projection_mean
            expression = self.projection_mean + (centered @ self.projection) @ self.projection.T
        target = self.normalization.get("target", "")
        if is_proportions(target):
            return to_simplex(expression)
        return np.maximum(expression, 0) if target == "log1p" else expression

    @plain_torch()
    def predict(self, section: SectionInput, *, exclude: Exclude | None = None) -> Prediction:
        """Predict the expression of every spot of a section.

        Parameters
        ----------
        section
            Its images; its expression is not looked at.
        exclude
            For methods that retrieve training spots, which of them a spot may not retrieve: those of its own
            "section", itself ("spot"), or "none". None is "section" where the model has seen other sections, else
            "spot". Sections and spots are recognized by their pixels.

        Raises
        ------
        RuntimeError
            The model is not fitted.
        """
        if not self.is_fitted:
            msg = f"This {self.method!r} model is not fitted. Call fit first."
            raise RuntimeError(msg)
        if exclude is not None:
            check_choice(exclude, ("section", "spot", "none"), name="exclude")
        prediction = self.predict_section(section, exclude)
        prediction = replace(prediction, expression=self._finished(prediction.expression))
        return replace(prediction, confidence=self._confidence(section)) if self.rates_confidence else prediction

    def _confidence(self, section: SectionInput) -> np.ndarray:
        if self.familiarity is None:
            return np.full(len(section), np.nan, dtype=np.float32)
        return self.familiarity.confidence(self._looks(section))

    def _looks(self, section: SectionInput) -> list[np.ndarray]:
        """Return what the method sees of the spots, and their pixels where it sees these: (n_spots, n) blocks."""
        reads_pixels = self._encoder is None or self._encoder.reads_pixels
        return [*self.appearance(section), *(pixel_blocks(section) if reads_pixels else [])]

    def appearance(self, section: SectionInput) -> Sequence[np.ndarray]:
        """Return what the spots of a section look like to the method, for the confidence of their prediction.

        Here these are the features of the image encoder, trained or frozen, and none for a method without one. A
        subclass that looks at something else overrides it. Nothing may be standardized by the section: a slide of
        another tissue would look normal. Colors and sharpness of the patch are looked at beside them, for every method.

        Returns
        -------
        Blocks of features, (n_spots, n) float32 each. A spot is as unlike as it is in the block in which it is most so.
        """
        return [extract(section, self.encoder).values] if self.has_encoder else []

    @checked(organ=text, license=text)
    def save(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        organ: str | None = None,
        license: str | None = None,  # noqa: A002 - what the Hugging Face hub calls it
    ) -> None:
        """Write the model to a folder: tensors, `config.json`, the passport, and a model card.

        Parameters
        ----------
        path
            The folder.
        overwrite
            Whether a saved model in its place is replaced.
        organ
            Organ or tissue that the model was trained on, for the model card. None: as stated before.
        license
            Identifier of the model's license on the Hugging Face hub, such as "cc-by-4.0", for the model card. None:
            as stated before.

        Raises
        ------
        FileExistsError
            The folder is there and `overwrite` is False.

        Notes
        -----
        `README.md` is a model card with the metadata of the Hugging Face hub. It is written from what the model knows
        of itself, and anew by `sthisto.tl.assess`, so that additions belong in a file of their own.
        """
        from sthisto.models.bundle import save

        stated = {"organ": organ, "license": license}
        self.facts |= {name: value for name, value in stated.items() if value is not None}
        save(self, Path(path), overwrite=overwrite)

    def bounds(self, prediction: Prediction, level: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the bounds between which a share `level` of the measured expression lies, (n_spots, n_genes) each.

        Raises
        ------
        ValueError
            The model has no calibration spots, or too few for that level.
        """
        if self.calibration is None:
            raise ValueError(NOT_CALIBRATED)
        least = 0.0 if self.normalization.get("target") == "log1p" else -np.inf
        return self.calibration.bounds(prediction.expression, prediction.sd, level, least=least)

    def seen(self, fingerprint: np.ndarray) -> np.ndarray:
        """Return (n_spots,) bool: the model was trained on the spot with that fingerprint."""
        return self.training_spots.includes(fingerprint)

    def replica(self) -> Self:
        """Return a model with networks of its own, which may move to another device, and everything else shared."""
        own, memo = copy(self), dict[int, Any]()
        for name, value in vars(self).items():
            if isinstance(value, nn.Module):
                setattr(own, name, deepcopy(value, memo))
        return own

    @property
    def n_features(self) -> int:
        """Features that the frozen encoder gives a spot, over all widths of context; given ones have one width."""
        return self.encoder.n_features(self.patch.size) * self.encoder.n_widths(len(self.patch.context))


def _without_validation(section: TrainingSection) -> TrainingSection:
    return replace(section, train=section.used, validation=np.empty(0, dtype=np.int64))


def empty_history() -> pd.DataFrame:
    """Return a history without epochs."""
    return pd.DataFrame({"epoch": np.empty(0, int), "train_loss": np.empty(0), "val_loss": np.empty(0)})


def stack(sections: Sequence[TrainingSection], rows: str) -> np.ndarray:
    """Return the expression of the "train" or "validation" rows of all sections, (n, n_genes)."""
    return np.concatenate([section.expression[section.rows(rows)] for section in sections])
