"""Methods that answer with the expression of similar training spots."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sthisto._utils.deprecate import warn_renamed
from sthisto._utils.logging import logger
from sthisto.models.base import ExpressionModel
from sthisto.models.data import Exclude, Features, Prediction, SectionInput, TrainingSection, section_numbers
from sthisto.models.encoders.features import extract
from sthisto.models.retrieval.bank import Bank, Retrieved


class RetrievalModel(ExpressionModel):
    """Base of the methods that keep a bank of training spots and average the nearest ones.

    The bank holds training and validation spots. A subclass has options that derive from `RetrievalOptions`, says in
    `queries` what the bank is asked with, and calls `fill_bank` in `fit_sections`.
    """

    retrieves = True
    rates_confidence = True
    _bank: Bank

    def fit(self, sections: Sequence[TrainingSection], *, seed: int = 0) -> None:
        """Learn from the training spots of all sections; raise ValueError for fewer than `k` of them."""
        n_spots = sum(len(section.used) for section in sections)
        if self.options.k > n_spots:
            msg = f"k={self.options.k} neighbors are wanted, but there are {n_spots} training spots. Pass a smaller k=…"
            raise ValueError(msg)
        super().fit(sections, seed=seed)

    def image_features(self, section: SectionInput) -> Features:
        """Return what `queries` is given: features of the image encoder."""
        return extract(section, self.encoder)

    @abstractmethod
    def queries(self, features: Features) -> np.ndarray:
        """Return what the bank is asked with, (n_spots, n_dimensions), for `image_features`."""

    def neighbors(self, section: SectionInput, *, exclude: Exclude | None = None) -> pd.DataFrame:
        """Return the training spots that each prediction was retrieved from.

        Returns
        -------
        One row a spot and rank: spot (its position in the section), rank, section (name of the training section),
        training_spot (its position there), cosine.
        """
        features = self.image_features(section)
        found, _ = self._retrieve(features, exclude)
        index, cosine = found.indices, found.cosine
        n, k = index.shape
        return pd.DataFrame(
            {
                "spot": np.repeat(np.arange(n), k),
                "rank": np.tile(np.arange(k), n),
                "section": np.asarray(self.training_sections)[self.training_spots.section[index.ravel()]],
                "training_spot": self._row_of[index.ravel()],
                "cosine": cosine.ravel(),
            }
        )

    def neighbours(self, section: SectionInput, **kwargs: Any) -> pd.DataFrame:
        """Return `neighbors`: the name of 0.1."""
        warn_renamed("model.neighbours", "model.neighbors")
        return self.neighbors(section, **kwargs)

    def fingerprint(self, section: str, spot: int) -> int:
        """Return what a training spot, by its section's name and its position there, is recognized by; 0 is nothing."""
        number = self.training_sections.index(section)
        (row,) = np.flatnonzero((self.training_spots.section == number) & (self._row_of == spot))
        return int(self.training_spots.fingerprint[row])

    def predict_section(self, section: SectionInput, exclude: Exclude | None) -> Prediction:
        """Average the training spots that are retrieved for each spot."""
        features = self.image_features(section)
        found, excluded = self._retrieve(features, exclude)
        return Prediction(
            expression=self._bank.average(found),
            sd=self._bank.spread(found),
            seen=self.seen(features.fingerprint),
            excluded=excluded,
        )

    def _retrieve(self, features: Features, exclude: Exclude | None) -> tuple[Retrieved, str]:
        """Return the neighbors of each spot, and the rule by which training spots were excluded."""
        sections, spots, excluded = self._excluded(features.fingerprint, exclude)
        n_allowed = len(self._bank)
        if sections is not None:
            n_allowed -= int(np.isin(self.training_spots.section, list(sections)).sum())
        elif spots is not None:
            n_allowed -= int((spots >= 0).any())
        if 0 < n_allowed < self.options.k:
            logger.warning(
                "A spot may retrieve only %d training spots, so that many are averaged, not k=%d.",
                n_allowed,
                self.options.k,
            )
        found = self._bank.retrieve(
            self.queries(features),
            min(self.options.k, max(n_allowed, 1)),
            self.options.aggregation,
            exclude_sections=sections,
            exclude=spots,
        )
        return found, excluded

    def fill_bank(self, sections: Sequence[TrainingSection], embedding: Sequence[np.ndarray]) -> None:
        """Fill the bank with the embeddings (n_spots, n_dimensions) of all spots of each section."""
        rows = [section.used for section in sections]
        self._row_of = np.concatenate(rows)
        self._bank = Bank(
            np.concatenate([values[used] for values, used in zip(embedding, rows, strict=True)]),
            np.concatenate([section.expression[used] for section, used in zip(sections, rows, strict=True)]),
            section=section_numbers(sections),
        )

    def _excluded(
        self, fingerprint: np.ndarray, exclude: Exclude | None
    ) -> tuple[set[int] | None, np.ndarray | None, str]:
        """Return the sections, or each spot's row of the bank, (n_spots,), not to be retrieved, and the rule's name."""
        own = self.training_spots.sections_of(fingerprint)
        if exclude is None:
            exclude = "section" if len(own) < len(self.training_sections) else "spot"
            if exclude == "spot":
                logger.warning(
                    "The bank holds no other section than the one that is predicted: its spots retrieve their "
                    "neighbors in the same section, never themselves. Scores on it do not hold for a new section."
                )
        if exclude == "section" and len(own):
            return set(own.tolist()), None, "section"
        if exclude == "spot":
            return None, self.training_spots.rows_of(fingerprint), "spot"
        return None, None, exclude

    def bank_axes(self) -> dict[str, tuple[int | str, ...]]:
        """Return the axes of the bank's tensors."""
        return {
            "embedding": ("spots", "dimensions"),
            "expression": ("spots", "genes"),
        }

    def bank_state(self) -> dict[str, Tensor]:
        """Return embedding, expression and origin of the bank's spots."""
        return {
            "embedding": torch.from_numpy(np.ascontiguousarray(self._bank.embedding)),
            "expression": torch.from_numpy(np.ascontiguousarray(self._bank.expression)),
            "row": torch.from_numpy(self._row_of),
        }

    def load_bank_state(self, state: Mapping[str, Tensor]) -> None:
        """Take what `bank_state` returned."""
        _check_bank(state["row"], len(self.training_spots.section))
        self._row_of = state["row"].numpy()
        self._bank = Bank(state["embedding"].numpy(), state["expression"].numpy(), section=self.training_spots.section)


def _check_bank(row: Tensor, n_spots: int) -> None:
    """Raise ValueError unless a stored bank says where each training spot was, (n_spots,) int64."""
    if row.dtype != torch.int64 or row.shape != (n_spots,) or int(row.min()) < 0:
        msg = f"'row' must hold the position of each of {n_spots} training spots."
        raise ValueError(msg)
