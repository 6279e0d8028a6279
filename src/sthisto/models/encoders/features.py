"""Features of a frozen encoder, computed once and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from tqdm.auto import tqdm

from sthisto._images.fingerprints import fingerprints
from sthisto._images.patches import PatchSource, read_once
from sthisto._utils.logging import logger
from sthisto._utils.settings import settings
from sthisto.models.data import SectionInput
from sthisto.models.encoders import cache
from sthisto.models.encoders.cache import clear_cache
from sthisto.models.encoders.dense import Tiling, window_means
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.encoders.inference import FrozenEncoder
from sthisto.models.encoders.reach import known_reach, reach

__all__ = ["Features", "clear_cache", "extract", "section_fingerprints"]

_RECOGNIZED_BY: Final = 32
"""Width in px of what a spot of a dense section is recognized by."""

_MANY: Final = 10_000
_WORTH_A_HINT: Final = 10


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


def extract(section: SectionInput, encoder: Encoder) -> Features:
    """Return the features of all spots of a section; what was encoded before comes from memory or the cache.

    Those of a dense section are means of the encoder's maps over windows, from one pass over the image.
    """
    identity = features_identity(encoder)
    if identity not in section.known:
        sources = read_once(section.patches)
        if section.dense:
            values = [_dense_means(source, encoder, identity, section.name) for source in sources]
            fingerprint = section_fingerprints(section)
        else:
            _hint_at_dense(section, encoder)
            parts = [_extract(source, encoder, identity, section.name) for source in sources]
            values, fingerprint = [part for part, _ in parts], parts[0][1]
        section.known[identity] = Features(np.concatenate(values, axis=1), fingerprint)
    features: Features = section.known[identity]
    return features


def _hint_at_dense(section: SectionInput, encoder: Encoder) -> None:
    if len(section) < _MANY or not encoder.layers:
        return
    gain = dense_gain([section], encoder)
    if gain > _WORTH_A_HINT:
        logger.warning(
            "The patches of the %d spots of section %r hold each pixel %.0f times: the model was fitted on patches. "
            "Fitted with dense_features=True, it reads features off one pass over the image.",
            len(section),
            section.name,
            gain,
        )


def features_identity(encoder: Encoder) -> str:
    """Return what features of an encoder are found by, beside the patches."""
    return f"{encoder.digest()}-{settings.precision}"


def section_fingerprints(section: SectionInput) -> np.ndarray:
    """Return (n_spots,) uint64 that recognize the spots of a section by their pixels.

    In a dense section, whose patches are not cut, these are a few pixels around each spot.
    """
    for features in section.known.values():
        return np.asarray(features.fingerprint)
    source = section.patches[0]
    if section.dense:
        source = source.around(extent=_RECOGNIZED_BY, size=_RECOGNIZED_BY)
    result = np.zeros(len(section), dtype=np.uint64)
    for index, patches in source.batches():
        result[index] = fingerprints(patches)
    return result


def dense_gain(sections: Sequence[SectionInput], encoder: Encoder) -> float:
    """Return how many times fewer pixels pass the encoder in one pass over the images than in patches.

    0 where one pass cannot serve all windows.
    """
    if reach(encoder) is None:
        return 0.0
    cut = dense = 0
    for section in sections:
        for source in section.patches:
            maps = EncoderMaps(encoder, source.size)
            cut += len(source) * maps.width**2
            dense += Tiling.plan(source, maps).n_pixels
    return cut / max(dense, 1)


class EncoderMaps:
    """The maps of an encoder's layers, for `dense.window_means`; the encoder is made ready when it is first needed.

    Parameters
    ----------
    patch_size
        Width in px of the patches whose means are wanted, as they would be cut.
    """

    def __init__(self, encoder: Encoder, patch_size: int) -> None:
        self._encoder = encoder
        around = known_reach(encoder)
        self.width = encoder.input_size or patch_size
        self.margin, self.stride = around.margin, around.stride
        self.n_channels = sum(layer.n_channels for layer in encoder.module.layers)  # type: ignore[union-attr]

    def __call__(self, tile: np.ndarray) -> list[np.ndarray]:
        """Return the maps (n_channels, rows, columns) of a uint8 tile (width, width, 3)."""
        return self._frozen.maps(tile)

    @cached_property
    def _frozen(self) -> FrozenEncoder:
        return FrozenEncoder(self._encoder, settings.precision)


def _dense_means(source: PatchSource, encoder: Encoder, identity: str, name: str) -> np.ndarray:
    maps = EncoderMaps(encoder, source.size)
    return window_means(Tiling.plan(source, maps), maps, identity=identity, name=name)


def _extract(source: PatchSource, encoder: Encoder, identity: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    values: np.ndarray | None = None
    encode = _Encoding(encoder, identity)
    spots = np.zeros(len(source), dtype=np.uint64)
    with tqdm(total=len(source), desc=f"Encoding {name}", disable=not settings.progress, leave=False) as progress:
        for index, patches in source.batches():
            spots[index] = fingerprints(patches)
            batch = encode(patches, spots[index])
            if values is None:
                values = np.empty((len(source), batch.shape[1]), dtype=np.float32)
            values[index] = batch
            progress.update(len(index))
    if values is None:
        values = np.empty((0, encoder.n_features(source.size)), dtype=np.float32)
    return values, spots


class _Encoding:
    """Encodes batches, or finds them in the cache; the encoder is made ready when it is first needed."""

    def __init__(self, encoder: Encoder, identity: str) -> None:
        self._encoder, self._identity = encoder, identity

    def __call__(self, patches: np.ndarray, fingerprint: np.ndarray) -> np.ndarray:
        if not settings.cache_features:
            return self._frozen(patches)
        key = cache.batch_key(patches, fingerprint)
        features = cache.read(self._identity, key)
        if features is None:
            features = self._frozen(patches)
            cache.write(self._identity, key, features)
        return features

    @cached_property
    def _frozen(self) -> FrozenEncoder:
        return FrozenEncoder(self._encoder, settings.precision)
