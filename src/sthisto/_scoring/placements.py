"""Places where the spots of a section could lie on an image: turned, mirrored and shifted. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

_TURNS: Final = {
    0: np.array([[1.0, 0.0], [0.0, 1.0]]),
    90: np.array([[0.0, -1.0], [1.0, 0.0]]),
    180: np.array([[-1.0, 0.0], [0.0, -1.0]]),
    270: np.array([[0.0, 1.0], [-1.0, 0.0]]),
}
"""Degrees, clockwise on a screen, whose y axis points down -> (2, 2) matrix."""
_MIRROR: Final = np.diag([-1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Placement:
    """A transformation of spots, ``turn(mirror(xy - center)) + center + shift``.

    Attributes
    ----------
    turn
        Degrees by which the spots are turned clockwise, a multiple of 90.
    mirrored
        Whether they are mirrored left to right, before they are turned.
    center
        (2,) what they are turned about, the center of their bounding box.
    shift
        (2,) x and y by which they are shifted afterwards.
    """

    turn: int
    mirrored: bool
    center: np.ndarray
    shift: np.ndarray

    @property
    def moves_only(self) -> bool:
        """Whether spots are neither turned nor mirrored."""
        return self.turn == 0 and not self.mirrored

    def __call__(self, xy: np.ndarray) -> np.ndarray:
        """Move (n, 2) points."""
        return np.asarray((xy - self.center) @ self._matrix.T + self.center + self.shift)

    @property
    def _matrix(self) -> np.ndarray:
        return _TURNS[self.turn] @ _MIRROR if self.mirrored else _TURNS[self.turn]

    def about(self, old: np.ndarray, new: np.ndarray) -> np.ndarray:
        """Return where the center lies, (2,), when the spots are turned about the point `old`, which moves to `new`."""
        return np.asarray((self.center - old) @ self._matrix.T + new)

    def moved(self, by: np.ndarray) -> Placement:
        """Return the placement with another shift, (2,), on top."""
        return replace(self, shift=self.shift + by)

    def apart(self, other: Placement) -> float:
        """Return the distance of two placements that turn alike, infinite for others."""
        if (self.turn, self.mirrored) != (other.turn, other.mirrored):
            return np.inf
        return float(np.linalg.norm(self.shift - other.shift))


def orientations(centers: np.ndarray) -> list[Placement]:
    """Return the eight symmetries of the square about the middle of the box around (n, 2) centers, identity first."""
    middle = (centers.min(axis=0) + centers.max(axis=0)) / 2
    return [Placement(turn, mirrored, middle, np.zeros(2)) for mirrored in (False, True) for turn in _TURNS]


def lattice(reach: float, step: float) -> Iterator[np.ndarray]:
    """Yield (2,) shifts of a square lattice around the origin, up to `reach` along each axis."""
    along = np.arange(-np.floor(reach / step), np.floor(reach / step) + 1) * step
    for x in along:
        for y in along:
            yield np.array([x, y])


def shifts_to(low: np.ndarray, high: np.ndarray, start: Placement, step: float) -> Iterator[Placement]:
    """Yield a placement with all shifts on a lattice that bring its center between the corners of a box, (2,) each."""
    for x in np.arange(np.ceil((low[0] - start.center[0]) / step), (high[0] - start.center[0]) / step):
        for y in np.arange(np.ceil((low[1] - start.center[1]) / step), (high[1] - start.center[1]) / step):
            yield start.moved(np.array([x, y]) * step)


def distinct(placements: Sequence[Placement], apart: float) -> list[Placement]:
    """Return placements in their order, without those closer than `apart` to one before."""
    kept: list[Placement] = []
    for one in placements:
        if all(one.apart(other) >= apart for other in kept):
            kept.append(one)
    return kept
