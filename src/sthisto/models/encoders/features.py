"""Features of a frozen encoder, computed once and kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tqdm.auto import tqdm

from sthisto._images.fingerprints import fingerprints
from sthisto._images.patches import PatchSource, read_once
from sthisto._utils.settings import settings
from sthisto.models.data import SectionInput
from sthisto.models.encoders import cache
from sthisto.models.encoders.cache import clear_cache
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.encoders.inference import FrozenEncoder
from sthisto.models.encoders.texture_encoder import TextureEncoder
from sthisto.models.encoders.texture_windows import window_texture

__all__ = ["Features", "clear_cache", "extract", "section_fingerprints"]

_FINGERPRINTS = "fingerprints"


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
    """Return the features of all spots of a section; what was encoded before comes from memory or the cache."""
    identity = features_identity(encoder)
    if identity not in section.known and isinstance(encoder, TextureEncoder):
        section.known[identity] = _textures(section)
    if identity not in section.known:
        parts = [_extract(source, encoder, identity, section.name) for source in read_once(section.patches)]
        section.known[identity] = Features(np.concatenate([values for values, _ in parts], axis=1), parts[0][1])
    features: Features = section.known[identity]
    return features


def _textures(section: SectionInput) -> Features:
    """Return texture over the width of each patch, (n_spots, N_TEXTURES n_widths)."""
    fingerprint = section_fingerprints(section)
    widths = [source.extent * source.level.downsample for source in section.patches]
    return Features(np.concatenate(list(window_texture(section, fingerprint, widths)), axis=1), fingerprint)


def features_identity(encoder: Encoder) -> str:
    """Return what features of an encoder are found by, beside the patches."""
    return f"{encoder.digest()}-{settings.precision}"


def section_fingerprints(section: SectionInput) -> np.ndarray:
    """Return (n_spots,) uint64 that recognize the spots of a section by their pixels."""
    for features in section.known.values():
        if isinstance(features, Features):
            return np.asarray(features.fingerprint)
    if _FINGERPRINTS in section.known:
        return np.asarray(section.known[_FINGERPRINTS])
    result = np.zeros(len(section), dtype=np.uint64)
    for index, patches in section.patches[0].batches():
        result[index] = fingerprints(patches)
    section.known[_FINGERPRINTS] = result
    return result


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
