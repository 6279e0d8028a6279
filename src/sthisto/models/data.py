"""What a model sees of a section: patches, positions and, for training, expression. No SpatialData here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from sthisto._images.fingerprints import fingerprints
from sthisto._images.patches import PatchSource
from sthisto._images.pyramid import Pyramid
from sthisto._utils.logging import logger
from sthisto.models.encoders import cache

Exclude = Literal["section", "spot", "none"]
"""Which training spots a spot may not retrieve: those of its own section, itself, or none."""
_AROUND: Final = "around"
_FINGERPRINTS: Final = "fingerprints"
_RECOGNIZED_BY_PX: Final = 32
"""Width of what a spot of a dense section is recognized by."""


def _no_features(name: str) -> np.ndarray:
    msg = f"There are no features {name!r}. Pass given=… to SectionInput."
    raise KeyError(msg)


@dataclass(frozen=True)
class Features:
    """Features of a section's spots.

    Attributes
    ----------
    values
        (n_spots, n_features) float32; several widths of context are concatenated.
    fingerprint
        (n_spots,) uint64 that recognizes a spot by its pixels; 0 where these are of one color.
    """

    values: np.ndarray
    fingerprint: np.ndarray


@dataclass(eq=False)
class SectionInput:
    """One section without its expression. It remembers the features computed from it, so that its image is read once.

    Parameters
    ----------
    name
        For messages only.
    patches
        One source for each width of context; all over the same n_spots spots.
    positions
        (n_spots, 2) x and y of the spots, in px of the full resolution.
    image
        The whole slide, for features that are measured on it instead of on patches; None: the level of the patches.
    um_per_px
        µm per px of the full resolution as the patches have them; None if unknown.
    dense
        Whether features are means over windows of maps of the whole image, instead of features of cut patches.
    given
        Returns features that were computed elsewhere, (n_spots, n_features) float32, by their name.
    """

    name: str
    patches: Sequence[PatchSource]
    positions: np.ndarray
    dense: bool = False
    image: Pyramid | None = None
    um_per_px: float | None = None
    given: Callable[[str], np.ndarray] = field(default=_no_features, repr=False)
    _features: dict[str, Features] = field(default_factory=dict, init=False, repr=False)
    _measured: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    _fingerprint: np.ndarray | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.positions)

    def features(self, key: str, compute: Callable[[], Features]) -> Features:
        """Return the features that were remembered under `key`; the first time, compute them.

        Parameters
        ----------
        key
            Identifies everything, other than the section, that the features depend on.
        compute
            Called without arguments if there are none yet.
        """
        if key not in self._features:
            features = compute()
            if not self._features:
                self._warn_of_one_color(features.fingerprint)
            self._features[key] = features
        return self._features[key]

    def fingerprint(self) -> np.ndarray:
        """Return (n_spots,) uint64 that recognize the spots by their pixels; 0 where these are of one color.

        In a dense section, whose patches are not cut, these are a few pixels around each spot.
        """
        if self.dense:
            return self.features(_AROUND, self._recognized_around).fingerprint
        for features in self._features.values():
            return np.asarray(features.fingerprint)
        if self._fingerprint is None:
            self._fingerprint = patch_fingerprints(self.patches[0])
            self._warn_of_one_color(self._fingerprint)
        return self._fingerprint

    def _recognized_around(self) -> Features:
        around = self.patches[0].around(extent=_RECOGNIZED_BY_PX, size=_RECOGNIZED_BY_PX)
        return Features(np.empty((len(self), 0), dtype=np.float32), patch_fingerprints(around))

    def measured(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return what was remembered of the whole section under `key`; the first time, compute it."""
        if key not in self._measured:
            self._measured[key] = compute()
        return self._measured[key]

    def _warn_of_one_color(self, fingerprint: np.ndarray) -> None:
        """Warn of patches of one color, 0 in `fingerprint`, (n_spots,): tissue or a part of the image is missing."""
        if empty := int((fingerprint == 0).sum()):
            logger.warning(
                "%d of %d patches of section %r are of one color: look whether the image is complete there.",
                empty,
                len(fingerprint),
                self.name,
            )


def kept_features(
    identity: str, sources: Sequence[PatchSource], measure: Callable[[], tuple[np.ndarray, np.ndarray]]
) -> Features:
    """Return features of the patches around spots, from the cache where their images need no reading.

    Parameters
    ----------
    identity
        What the features are found by, beside the patches.
    sources
        One for each width of context; the patches of the first recognize the spots.
    measure
        Cuts the patches; returns the features, (n_spots, n_features) float32, and the fingerprints of the first source.
    """
    found: list[np.ndarray] = []

    def values() -> np.ndarray:
        features, fingerprint = measure()
        found.append(fingerprint)
        return features

    features = cache.of_sources(identity, sources, values)
    return Features(features, patch_fingerprints(sources[0], found[0] if found else None))


def patch_fingerprints(source: PatchSource, known: np.ndarray | None = None) -> np.ndarray:
    """Return (n_patches,) uint64 by which patches are recognized; from the cache where their image needs no reading.

    Parameters
    ----------
    known
        (n_patches,) those that were found when the patches were cut for another end.
    """

    def look() -> np.ndarray:
        result = np.zeros(len(source), dtype=np.uint64)
        for index, patches in source.batches():
            result[index] = fingerprints(patches)
        return result

    return cache.of_sources(_FINGERPRINTS, [source], look if known is None else lambda: known)


@dataclass(frozen=True)
class TrainingSection:
    """One section with the expression that may be learned from.

    Attributes
    ----------
    inputs
        All spots of the section; their images may be looked at.
    expression
        (n_spots, n_genes) float32 on the scale of the model's normalization; NaN in every row that is neither in
        `train` nor in `validation`, so that it cannot be learned from.
    train, validation
        (n,) rows that weights are fitted on, and rows that choose the epoch.
    residuals
        (n_spots, n_genes) float32 Pearson residuals of the counts, for methods that learn from them beside the
        expression; NaN in the same rows. None where a method doesn't, or where there are no counts.
    patient
        Whose tissue it is; "" where that is unknown. Sections of other patients show how unlike new tissue can be.
    """

    inputs: SectionInput
    expression: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    residuals: np.ndarray | None = None
    patient: str = ""

    @property
    def name(self) -> str:
        """The section's name."""
        return self.inputs.name

    def rows(self, part: str) -> np.ndarray:
        """Return the rows of "train" or of "validation", (n,)."""
        return {"train": self.train, "validation": self.validation}[part]

    @property
    def used(self) -> np.ndarray:
        """Rows of `train`, then those of `validation`, (n,)."""
        return np.concatenate([self.train, self.validation])


@dataclass(frozen=True)
class TrainingSpots:
    """The spots that a model has learned from, as it recognizes them.

    Attributes
    ----------
    fingerprint
        (n,) uint64 of each spot's pixels; 0 is not recognized.
    section
        (n,) int64 position of each spot's section among the training sections.
    """

    fingerprint: np.ndarray
    section: np.ndarray

    @classmethod
    def none(cls) -> TrainingSpots:
        """Return no spots."""
        return cls(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))

    @classmethod
    def of(cls, sections: Sequence[TrainingSection]) -> TrainingSpots:
        """Return the training and validation spots of all sections."""
        fingerprint = np.concatenate([one.inputs.fingerprint()[one.used] for one in sections])
        return cls(fingerprint, section_numbers(sections))

    def includes(self, fingerprint: np.ndarray) -> np.ndarray:
        """Return (n_spots,) bool: the model has learned from the spot with that fingerprint."""
        return np.isin(fingerprint, self.fingerprint[self.fingerprint != 0])

    def sections_of(self, fingerprint: np.ndarray) -> np.ndarray:
        """Return the positions, (n,), of the training sections that share a spot with (n_spots,) fingerprints."""
        return np.unique(self.section[np.isin(self.fingerprint, fingerprint[fingerprint != 0])])

    def rows_of(self, fingerprint: np.ndarray) -> np.ndarray:
        """Return (n_spots,) the training spot with each fingerprint, -1 where there is none."""
        order = np.argsort(self.fingerprint, kind="stable")
        place = np.searchsorted(self.fingerprint, fingerprint, sorter=order)
        candidate = order[np.minimum(place, len(order) - 1)]
        same = (self.fingerprint[candidate] == fingerprint) & (fingerprint != 0)
        return np.where(same, candidate, -1)


def section_numbers(sections: Sequence[TrainingSection]) -> np.ndarray:
    """Return the position of its section for every training and validation spot, (n,) int64."""
    return np.repeat(np.arange(len(sections)), [len(section.used) for section in sections])


@dataclass(frozen=True)
class Prediction:
    """What a model says of one section.

    Attributes
    ----------
    expression
        (n_spots, n_genes) float32.
    sd
        (n_spots, n_genes) float32 spread of the expression that the prediction averages, None where a method has none.
    confidence
        (n_spots,) float32 between 0 and 1: how like the training spots a spot looks (see `Familiarity`). None where a
        method has none, NaN where it cannot be told.
    seen
        (n_spots,) bool: the model was trained on the spot.
    excluded
        What of the training spots was left out of the retrieval: "section", "spot", "none"; "" without retrieval.
    """

    expression: np.ndarray
    seen: np.ndarray
    sd: np.ndarray | None = None
    confidence: np.ndarray | None = None
    excluded: str = ""


@dataclass(frozen=True)
class FinePrediction:
    """Expression predicted between the spots of a section.

    Attributes
    ----------
    positions
        (n_points, 2) x and y in px of the full resolution.
    spot
        (n_points,) the spot whose share of the tissue a point lies in.
    expression
        (n_points, n_genes) float32.
    """

    positions: np.ndarray
    spot: np.ndarray
    expression: np.ndarray

    def by_spot(self) -> np.ndarray:
        """Average the points of each spot, (n_spots, n_genes): the paper's way to a steadier prediction."""
        points_of_spot = self.expression.reshape(-1, self.spot.max() + 1, self.expression.shape[1])
        return np.asarray(points_of_spot.mean(axis=0))
