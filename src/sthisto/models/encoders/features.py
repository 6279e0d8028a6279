"""Features of a frozen encoder, computed once and kept on disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
from tqdm.auto import tqdm

from sthisto._images.fingerprints import fingerprints
from sthisto._images.patches import PatchSource, read_once
from sthisto._utils.logging import logger
from sthisto._utils.settings import settings
from sthisto.models.data import Features, SectionInput, kept_features
from sthisto.models.encoders import cache
from sthisto.models.encoders.backends import TORCH, backend_name
from sthisto.models.encoders.cache import clear_cache
from sthisto.models.encoders.dense import Tiling, window_means
from sthisto.models.encoders.encoder import Encoder
from sthisto.models.encoders.inference import FrozenEncoder
from sthisto.models.encoders.pace import Pace
from sthisto.models.encoders.reach import known_reach, reach
from sthisto.models.training.devices import torch_device

__all__ = ["Features", "clear_cache", "extract"]

_MANY: Final = 10_000
_WORTH_A_HINT: Final = 10


def extract(section: SectionInput, encoder: Encoder) -> Features:
    """Return the features that a frozen encoder gives all spots of a section.

    Those of a dense section are means of the encoder's maps over windows, from one pass over the image.

    Parameters
    ----------
    section
        Remembers the features, so that they are computed once for each encoder.
    encoder
        Applied batch by batch on the device of the settings. What was encoded before, by any process, is read from
        ``settings.cache_dir`` (``settings.cache_features = False`` turns this off): batches of patches with the same
        pixels, or all of a section where its image is recognized without being read. Features of a dense section are
        means of the encoder's maps over windows, from one pass over the image.

    Returns
    -------
    Features of the spots, (n_spots, n_features) float32, those of several widths of context side by side, and the
    spots' fingerprints.
    """
    identity = features_identity(encoder)

    def encode() -> Features:
        known = encoder.of_section(section)
        if known is not None:
            return known
        if section.dense:
            values = cache.of_sources(f"{identity}-dense", section.patches, lambda: _dense(section, encoder, identity))
            return Features(values, section.fingerprint())
        _hint_at_dense(section, encoder)

        def cut() -> tuple[np.ndarray, np.ndarray]:
            parts = [_extract(source, encoder, identity, section.name) for source in read_once(section.patches)]
            return np.concatenate([values for values, _ in parts], axis=1), parts[0][1]

        return kept_features(identity, section.patches, cut)

    return section.features(identity, encode)


def _dense(section: SectionInput, encoder: Encoder, identity: str) -> np.ndarray:
    sources = read_once(section.patches)
    return np.concatenate([_dense_means(source, encoder, identity, section.name) for source in sources], axis=1)


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
    backend = backend_name(torch_device(), settings.precision)
    return f"{encoder.digest()}-{settings.precision}" + (f"-{backend}" if backend != TORCH else "")


def dense_gain(sections: Sequence[SectionInput], encoder: Encoder) -> float:
    """Return how many times fewer pixels pass the encoder in one pass over the images than in patches.

    0 where one pass cannot serve all windows.
    """
    if reach(encoder) is None:
        return 0.0
    cut = dense = 0
    sizes = {source.size for section in sections for source in section.patches}
    of_size = {size: EncoderMaps(encoder, size) for size in sizes}
    for section in sections:
        for source in section.patches:
            maps = of_size[source.size]
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
    pace, n_done = Pace(len(source), name), 0
    with tqdm(total=len(source), desc=f"Encoding {name}", disable=not settings.progress, leave=False) as progress:
        for index, patches in source.batches():
            spots[index] = fingerprints(patches)
            batch = encode(patches, spots[index])
            if values is None:
                values = np.empty((len(source), batch.shape[1]), dtype=np.float32)
            values[index] = batch
            progress.update(len(index))
            n_done += len(index)
            pace.at(n_done)
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
