"""Features of a frozen encoder, computed once and kept on disk."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from tqdm.auto import tqdm

from sthisto._images.fingerprints import fingerprints
from sthisto._images.patches import PatchSource, read_once
from sthisto._utils.settings import settings
from sthisto.models.data import Features, SectionInput
from sthisto.models.encoders import cache
from sthisto.models.encoders.cache import clear_cache
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.encoders.inference import FrozenEncoder

__all__ = ["Features", "clear_cache", "extract"]


def extract(section: SectionInput, encoder: Encoder) -> Features:
    """Return the features that a frozen encoder gives all spots of a section.

    Parameters
    ----------
    section
        Remembers the features, so that they are computed once for each encoder.
    encoder
        Applied batch by batch on the device of the settings. Batches encoded before, by any process, are read from
        ``settings.cache_dir`` (``settings.cache_features = False`` turns this off).

    Returns
    -------
    Features of the spots, (n_spots, n_features) float32, those of several widths of context side by side, and the
    spots' fingerprints.
    """
    identity = features_identity(encoder)

    def encode() -> Features:
        parts = [_extract(source, encoder, identity, section.name) for source in read_once(section.patches)]
        return Features(np.concatenate([values for values, _ in parts], axis=1), parts[0][1])

    return section.features(identity, encode)


def features_identity(encoder: Encoder) -> str:
    """Return what features of an encoder are found by, beside the patches."""
    return f"{encoder.digest()}-{settings.precision}"


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
