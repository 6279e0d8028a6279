"""How well expression agrees with what an image shows under the spots, for every place where they could lie."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

from sthisto._scoring.placements import Placement, distinct, lattice, orientations, shifts_to
from sthisto.metrics import pearson_residuals

_N_GENES: Final = 1000
_N_VARIABLE: Final = 300
_N_COMPONENTS: Final = 10
_NEIGHBORHOOD: Final = 3.2
"""Radius in pitches of the neighborhood whose mean is taken off: what changes more slowly tells nothing of a shift."""
_CLIP: Final = 4.0
_CELLS: Final = 5
_N_FOLDS: Final = 5
_MOST_OUTSIDE: Final = 0.25
_MOST_PLACES: Final = 120
_MOST_FOREIGN_PLACES: Final = 40
"""Places tried for each orientation on the own image and on others, those with most spots on tissue."""
_REFINED: Final = 4
_FEWEST_PLACES: Final = 20
_FAR: Final = 2.0
"""Pitches from the best placement beyond which others count as random."""


@dataclass(frozen=True)
class FeatureMap:
    """Features of an image on a square lattice.

    Attributes
    ----------
    values
        (rows, columns, n_features) float32, each of mean 0 and variance 1 over tissue; NaN off tissue.
    origin
        (2,) x and y of the first point in px of the full resolution.
    step
        Distance of its points in px of the full resolution.
    """

    values: np.ndarray
    origin: np.ndarray
    step: float

    def at(self, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features at (n, 2) points, 0 where there are none, and where these are: (n, n_features), (n,) bool."""
        rows, columns = self.values.shape[:2]
        cell = np.rint((xy - self.origin) / self.step).astype(int)
        inside = ((cell >= 0) & (cell < [columns, rows])).all(axis=1)
        cell = np.clip(cell, 0, [columns - 1, rows - 1])
        found = self.values[cell[:, 1], cell[:, 0]]
        known = inside & np.isfinite(found[:, 0])
        return np.where(known[:, None], found, 0), known

    @property
    def tissue_box(self) -> tuple[np.ndarray, np.ndarray]:
        """Left and top, right and bottom of what has features, (2,) each, in px of the full resolution."""
        rows, columns = np.nonzero(np.isfinite(self.values[..., 0]))
        low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()])
        return self.origin + low * self.step, self.origin + high * self.step


def expression_components(counts: sp.csr_array, *, are_counts: bool) -> np.ndarray:
    """Return the leading components of a section's expression, (n_spots, n_components), free of the spots' depth."""
    totals = np.asarray(counts.sum(axis=0)).ravel()
    genes = np.sort(np.argsort(-totals, kind="stable")[:_N_GENES])
    values: Any = counts[:, genes].toarray().astype(np.float64)
    if are_counts:
        depth = np.asarray(counts.sum(axis=1)).ravel()
        values = np.nan_to_num(pearson_residuals(values, totals=depth))
    values = values - values.mean(axis=0)
    values = values[:, np.argsort(-values.var(axis=0), kind="stable")[:_N_VARIABLE]]
    left, strength, _ = np.linalg.svd(values, full_matrices=False)
    n = min(_N_COMPONENTS, len(strength))
    return np.asarray(left[:, :n] * np.sqrt(strength[:n]))


class Agreement:
    """Cross-validated agreement of the expression of spots with features of an image.

    Ridge regression predicts the leading components of expression from the features under the spots, with spatial
    blocks held out. Both are free of what varies slowly: of each spot, the mean of its neighborhood is taken off.
    The score is the share of the variance that the prediction explains.

    Parameters
    ----------
    centers
        (n_spots, 2) x and y.
    components
        (n_spots, n_components) expression.
    pitch
        Distance of neighboring spots, in the unit of `centers`.
    """

    def __init__(self, centers: np.ndarray, components: np.ndarray, pitch: float) -> None:
        self.centers, self.pitch = centers, pitch
        self._local = _minus_neighborhood(centers, _NEIGHBORHOOD * pitch)
        self._target = self._local @ components
        self._target -= self._target.mean(axis=0)
        self._fold = _folds(centers)

    def scaled(self, by: float) -> Agreement:
        """Return the same for spots in px of another size, `by` of them for each of the old ones."""
        other = copy(self)
        other.centers, other.pitch = self.centers * by, self.pitch * by
        return other

    def score(self, features: FeatureMap, placement: Placement) -> float:
        """Return the share of variance explained; NaN where more than a quarter of the spots are off tissue."""
        found, known = features.at(placement(self.centers))
        if known.mean() < 1 - _MOST_OUTSIDE:
            return np.nan
        predicted = self._held_out(self._local @ found)
        return float(1 - np.square(self._target - predicted).sum() / np.square(self._target).sum())

    def _held_out(self, features: np.ndarray) -> np.ndarray:
        scaled = (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-3)
        scaled = np.clip(scaled, -_CLIP, _CLIP)
        rows = [np.flatnonzero(self._fold == fold) for fold in range(_N_FOLDS)]
        grams = [scaled[of].T @ scaled[of] for of in rows]
        crossed = [scaled[of].T @ self._target[of] for of in rows]
        gram = sum(grams) + len(scaled) * np.eye(scaled.shape[1])
        predicted = np.zeros_like(self._target)
        for of, own, other in zip(rows, grams, crossed, strict=True):
            predicted[of] = scaled[of] @ np.linalg.solve(gram - own, sum(crossed) - other)
        return predicted


@dataclass(frozen=True)
class Search:
    """What a search over placements found.

    Attributes
    ----------
    best
        The placement with the highest score.
    best_z, z
        z-scores of the best placement, and of the spots as they are, against placements at random.
    """

    best: Placement
    best_z: float
    z: float


def own_places(agreement: Agreement, features: FeatureMap, size: tuple[int, int]) -> list[Placement]:
    """Return placements on a section's own image: shifts by half pitches, then all orientations over the tissue.

    Parameters
    ----------
    size
        Width and height of the image, about whose middle it may have been turned, in px.
    """
    first, *others = orientations(agreement.centers)
    pitch = agreement.pitch
    places = [first.moved(by) for by in lattice(3 * pitch, pitch / 2)]
    middle = np.array(size) / 2
    for start in others:
        turned = middle if start.turn % 180 == 0 else middle[::-1]
        about_image = start.moved(start.about(turned, middle) - start.center)
        places += [about_image.moved(by) for by in lattice(3 * pitch, pitch)]
    return _without_repeats([*places, *_all_over(agreement, features, _MOST_PLACES)], pitch / 4)


def foreign_places(agreement: Agreement, features: FeatureMap) -> list[Placement]:
    """Return placements on the image of another section: where the spots lie, and over the middle of its tissue."""
    first, pitch = orientations(agreement.centers)[0], agreement.pitch
    low, high = features.tissue_box
    starts = [first, first.moved((low + high) / 2 - first.center)]
    places = [start.moved(by) for start in starts for by in lattice(3 * pitch, pitch)]
    return _without_repeats([*places, *_all_over(agreement, features, _MOST_FOREIGN_PLACES)], pitch / 4)


def search(agreement: Agreement, features: FeatureMap, placements: list[Placement]) -> Search | None:
    """Look for the placement of the spots that agrees best with an image.

    Parameters
    ----------
    placements
        Those to try; the best are refined to a quarter of a pitch.

    Returns
    -------
    None where fewer than 20 placements could be scored: there is nothing to compare with.
    """
    pitch = agreement.pitch
    scores = np.array([agreement.score(features, one) for one in placements])
    order = np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")[: np.isfinite(scores).sum()]
    if len(order) < _FEWEST_PLACES:
        return None
    best, best_score = _refined(agreement, features, [placements[i] for i in order[: 4 * _REFINED]])
    random = scores[[i for i in order if placements[i].apart(best) > _FAR * pitch]]
    if len(random) < _FEWEST_PLACES:
        return None
    mean, spread = random.mean(), max(float(random.std()), 1e-9)
    own = agreement.score(features, orientations(agreement.centers)[0])
    return Search(best, float((best_score - mean) / spread), float((own - mean) / spread))


def _without_repeats(placements: list[Placement], step: float) -> list[Placement]:
    seen: dict[tuple[Any, ...], Placement] = {}
    for one in placements:
        seen.setdefault((one.turn, one.mirrored, *np.rint(one.shift / step).astype(int).tolist()), one)
    return list(seen.values())


def _all_over(agreement: Agreement, features: FeatureMap, most: int) -> list[Placement]:
    """Return placements over the tissue, for each orientation those with most spots on it: `most` of them."""
    low, high = features.tissue_box
    found = []
    for start in orientations(agreement.centers):
        places = list(shifts_to(low, high, start, agreement.pitch))
        on_tissue = np.array([features.at(place(agreement.centers))[1].mean() for place in places])
        order = np.argsort(-on_tissue, kind="stable")[:most]
        found += [places[i] for i in order]
    return found


def _refined(agreement: Agreement, features: FeatureMap, candidates: list[Placement]) -> tuple[Placement, float]:
    """Return the best placement within a pitch of the candidates, to a quarter of a pitch, and its score."""
    pitch = agreement.pitch
    best, best_score = candidates[0], agreement.score(features, candidates[0])
    for start in distinct(candidates, 1.5 * pitch)[:_REFINED]:
        for by in lattice(0.75 * pitch, pitch / 4):
            score = agreement.score(features, start.moved(by))
            if score > best_score:
                best, best_score = start.moved(by), score
    return best, best_score


def _minus_neighborhood(centers: np.ndarray, radius: float) -> sp.csr_array:
    """Return the (n, n) matrix that takes off each spot's mean over its neighborhood."""
    pairs = cKDTree(centers).query_pairs(radius, output_type="ndarray")
    n = len(centers)
    rows, columns = np.concatenate([pairs, pairs[:, ::-1], np.repeat(np.arange(n), 2).reshape(-1, 2)]).T
    near = sp.csr_array((np.ones(len(rows)), (rows, columns)), shape=(n, n))
    mean = sp.diags_array(1 / near.sum(axis=1)) @ near
    return sp.csr_array(sp.eye_array(n) - mean)


def _folds(centers: np.ndarray) -> np.ndarray:
    """Return the fold of each of the (n_spots, 2) centers, (n_spots,): 25 blocks, dealt to five folds."""
    low, high = centers.min(axis=0), centers.max(axis=0)
    cell = np.minimum((centers - low) / np.maximum(high - low, 1e-9) * _CELLS, _CELLS - 1).astype(int)
    return np.asarray((cell[:, 0] + 2 * cell[:, 1]) % _N_FOLDS)
