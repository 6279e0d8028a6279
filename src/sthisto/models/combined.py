"""Several fitted models as one: each prediction brought to one spread, then averaged."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sthisto._utils.checks import LARGEST_SEED
from sthisto.models.base import ExpressionModel, stack
from sthisto.models.data import Exclude, Prediction, SectionInput, TrainingSection
from sthisto.models.registry import METHODS

_SMALLEST_SPREAD = 1e-6
_LEAST_SHARE = 0.25


class Member(NamedTuple):
    """One of several models."""

    method: str
    options: Mapping[str, Any]
    weight: float
    """Share in the prediction; those of all members sum to 1."""
    of_residuals: bool = False
    """Whether it learns Pearson residuals instead of the expression."""


class CombinedModel(ExpressionModel):
    """Base of ensembles: several models fitted on the same sections, whose predictions are combined.

    Each prediction is centered and scaled, gene by gene, by the mean and the standard deviation of what that model
    predicts for the training spots (for models that retrieve: from other sections where there are any). The weighted
    mean of these is brought back to the expression's scale with the training mean of the gene and the mean of the
    standard deviations of the models that learn the expression, so that it is as spread out as its members. A standard
    deviation below a quarter of the largest among the models of one scale counts as that quarter: one that retrieves
    from other sections predicts a constant for a gene of a tissue that a single section has, and dividing by it would
    blow up what it says of a new one. A subclass names its members in `_plan`.
    """

    has_epochs = True  # members with epochs choose theirs by the validation spots, the others learn from these too
    combines_models = True
    _members: list[ExpressionModel]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        first = METHODS[self._plan()[0].method]
        self.has_embedding, self.has_gene_embedding = first.has_embedding, first.has_gene_embedding
        self.rates_confidence = first.rates_confidence

    @abstractmethod
    def _plan(self) -> Sequence[Member]:
        """Return the members; the first, which embeds, learns the expression."""

    def _build(self) -> None:
        self._members = []
        for plan in self._plan():
            cls = METHODS[plan.method]
            self._members.append(
                cls(
                    self.genes,
                    patch=self.patch,
                    options=cls.make_options(plan.options),
                    encoder=self._encoder if cls.uses_encoder else None,
                    normalization=self.normalization | ({"target": "pearson_residuals"} if plan.of_residuals else {}),
                )
            )
            self._members[-1].rates_confidence = False  # rated once, for all members

    def fit_sections(self, sections: Sequence[TrainingSection], seed: int) -> None:
        """Fit the members, and measure how their predictions of the training spots are distributed."""
        self._build()
        histories = []
        for number, (plan, member) in enumerate(zip(self._plan(), self._members, strict=True)):
            shown = [_on_residuals(one) for one in sections] if plan.of_residuals else sections
            member.fit(shown, seed=(seed + number) % (LARGEST_SEED + 1))
            histories.append(member.history)
        self.history = _mean_history(histories)
        self._mean = stack(sections, "train").mean(axis=0)
        centers, spreads = [], []
        for member in self._members:
            rows = [member.predict(section.inputs).expression[section.used] for section in sections]
            predicted = np.concatenate(rows)
            centers.append(predicted.mean(axis=0))
            spreads.append(predicted.std(axis=0))
        self._center, self._spread = np.stack(centers), np.stack(spreads)

    def predict_section(self, section: SectionInput, exclude: Exclude | None) -> Prediction:
        """Average the members' predictions."""
        predictions = [member.predict(section, exclude=exclude) for member in self._members]
        scaled = self._scaled(np.stack([prediction.expression for prediction in predictions]))
        on_scale = [p for plan, p in zip(self._plan(), predictions, strict=True) if not plan.of_residuals]
        return Prediction(
            expression=self._combine(scaled),
            sd=_spread([p.sd for p in on_scale if p.sd is not None], self._typical_spread() * scaled.std(axis=0)),
            seen=self.seen(section.fingerprint()),
            excluded=next((p.excluded for p in predictions if p.excluded), ""),
        )

    def _scaled(self, expression: np.ndarray) -> np.ndarray:
        """Center and scale what each member says, (n_members, n_spots, n_genes)."""
        spread = self._spread.copy()
        residuals = np.array([plan.of_residuals for plan in self._plan()])
        for scale in (residuals, ~residuals):
            if scale.any():
                least = np.maximum(_LEAST_SHARE * spread[scale].max(axis=0), _SMALLEST_SPREAD)
                spread[scale] = np.maximum(spread[scale], least)
        return np.asarray((expression - self._center[:, None]) / spread[:, None])

    def _combine(self, scaled: np.ndarray) -> np.ndarray:
        """Combine what `_scaled` returned to expression, (n_spots, n_genes) float32."""
        weights = np.array([plan.weight for plan in self._plan()])
        return np.asarray(self._mean + self._typical_spread() * np.tensordot(weights, scaled, axes=1), dtype=np.float32)

    def _typical_spread(self) -> np.ndarray:
        """Return (n_genes,) the mean standard deviation of the members that learn the expression."""
        weights = np.array([0.0 if plan.of_residuals else plan.weight for plan in self._plan()])
        return np.tensordot(weights / weights.sum(), self._spread, axes=1)

    def replica(self) -> Self:
        """Return a model whose members have networks of their own, which may move to another device."""
        own = super().replica()
        own._members = [member.replica() for member in self._members]
        return own

    def appearance(self, section: SectionInput) -> Sequence[np.ndarray]:
        """Return what the spots look like to the first member, blocks (n_spots, n) float32."""
        return self._members[0].appearance(section)

    def embed(self, section: SectionInput) -> np.ndarray:
        """Return the image embedding of the first member, (n_spots, n_dimensions) float32."""
        return self._members[0].embed(section)

    def embed_genes(self, expression: np.ndarray) -> np.ndarray:
        """Return the gene embedding of the first member, (n_spots, n_dimensions) float32."""
        return self._members[0].embed_genes(expression)

    def state_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of what was learned."""
        self._build()
        members = len(self._members)
        own = {"mean": ("genes",), "center": (members, "genes"), "spread": (members, "genes")}
        return own | {
            f"{number}.{name}": axes
            for number, member in enumerate(self._members)
            for name, axes in member.state_axes().items()
        }

    def bank_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of the members' banks."""
        return {
            f"{number}.{name}": axes
            for number, member in enumerate(self._members)
            for name, axes in member.bank_axes().items()
        }

    def state(self) -> dict[str, Tensor]:
        """Return what the members learned, and how they are combined."""
        own = {"mean": self._mean, "center": self._center, "spread": self._spread}
        state = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in own.items()}
        return state | dict(self._numbered(member.state() for member in self._members))

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take what the members learned, and how they are combined."""
        self._mean, self._center, self._spread = (state[name].numpy() for name in ("mean", "center", "spread"))
        self._build()
        for number, member in enumerate(self._members):
            member.training_sections = self.training_sections
            member.training_spots = self.training_spots
            member.load_state(_of_member(state, number))
            member.is_fitted = True

    def bank_state(self) -> dict[str, Tensor]:
        """Return the banks of the members that keep one."""
        return dict(self._numbered(member.bank_state() for member in self._members))

    def load_bank_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the banks."""
        for number, member in enumerate(self._members):
            member.load_bank_state(_of_member(state, number))

    @staticmethod
    def _numbered(states: Iterator[dict[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        for number, state in enumerate(states):
            yield from ((f"{number}.{name}", value) for name, value in state.items())


def _on_residuals(section: TrainingSection) -> TrainingSection:
    if section.residuals is None:
        msg = f"Section {section.name!r} has no Pearson residuals, which some of the models learn."
        raise ValueError(msg)
    return replace(section, expression=section.residuals)


def _of_member(state: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    prefix = f"{number}."
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _mean_history(histories: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Average the losses of the members that were still trained in an epoch."""
    together = pd.concat([history for history in histories if len(history)] or list(histories[:1]))
    return together.groupby("epoch", as_index=False).mean()[["epoch", "train_loss", "val_loss"]]


def _spread(spreads: Sequence[np.ndarray], between: np.ndarray) -> np.ndarray | None:
    """Return the spread within and between members, (n_spots, n_genes): the root of the sum of both variances."""
    if not spreads:
        return None
    within = np.mean(np.square(spreads), axis=0)
    return np.asarray(np.sqrt(within + np.square(between)), dtype=np.float32)
