"""Features that were computed elsewhere, in the place of an image encoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, Final

import numpy as np
from torch import Tensor, nn

from sthisto.models.data import Features, SectionInput
from sthisto.models.encoders.encoder import Encoder

PREFIX: Final = "obsm:"


@dataclass(frozen=True)
class GivenPart:
    """Features of one model, as a table holds them.

    Attributes
    ----------
    key
        Slot of ``obsm``.
    n_features
        Their number.
    width_um
        Width of tissue in µm that they were computed from, None where it is unknown.
    weight
        What they are multiplied with, so that several parts vary alike in total.
    """

    key: str
    n_features: int
    width_um: float | None = None
    weight: float = 1.0


class GivenFeatures(Encoder):
    """Takes the place of an image encoder where the features of the spots are given.

    Parameters
    ----------
    parts
        The features, which are concatenated.
    """

    reads_pixels = False

    def __init__(self, parts: Sequence[GivenPart]) -> None:
        name = "+".join(f"{PREFIX}{part.key}" for part in parts)
        super().__init__(nn.Identity(), name=name, weights=json.dumps([asdict(part) for part in parts]))
        self.parts = tuple(parts)

    @classmethod
    def from_record(cls, weights: str) -> GivenFeatures:
        """Return the features that a saved model names."""
        stored: list[dict[str, Any]] = json.loads(weights)
        return cls([GivenPart(**part) for part in stored])

    def forward(self, patches: Tensor) -> Tensor:
        """Refuse to encode patches, (batch, size, size, 3), whose features were given.

        Raises
        ------
        ValueError
            Always: the method or an option of it encodes other patches than those of the spots.
        """
        msg = f"The features of this model were given ({self.name}), and it can't encode patches itself."
        raise ValueError(msg)

    def n_features(self, patch_size: int) -> int:
        """Return the number of features."""
        return sum(part.n_features for part in self.parts)

    def digest(self) -> str:
        """Return a digest of names, widths, numbers and weights."""
        return blake2b(self.weights.encode(), digest_size=16).hexdigest()

    def of_section(self, section: SectionInput) -> Features:
        """Return the given features of a section, (n_spots, n_features) float32, and fingerprints made from them.

        Raises
        ------
        ValueError
            The section has another number of features than those that the model was fitted on.
        """
        found = []
        for part in self.parts:
            values = section.given(part.key)
            if values.shape[1] != part.n_features:
                msg = (
                    f"obsm[{part.key!r}] of section {section.name!r} has {values.shape[1]} columns; the model was "
                    f"fitted on {part.n_features} features. They are of another model."
                )
                raise ValueError(msg)
            found.append(values * np.float32(part.weight))
        values = np.concatenate(found, axis=1)
        return Features(values, feature_fingerprints(values))


def feature_fingerprints(values: np.ndarray) -> np.ndarray:
    """Return (n_spots,) uint64 that recognize a spot by its features."""
    rows = np.ascontiguousarray(values)
    digests = b"".join(blake2b(row.data, digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, dtype=np.uint64).copy()
