"""Standardized blocks of features: texture and an encoder's features at several widths, and the tissue's border."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from sthisto._utils.validate import check_choice
from sthisto.models.data import SectionInput
from sthisto.models.encoders.encoder import TEXTURE, Encoder
from sthisto.models.encoders.features import extract
from sthisto.models.encoders.texture import UM_PER_PX
from sthisto.models.encoders.texture_windows import slide_facts, window_texture

FeatureKind = Literal["texture", "encoder", "border"]
KINDS: Final[tuple[FeatureKind, ...]] = ("texture", "encoder", "border")
SHARES: Final[Mapping[str, float]] = {"texture": 0.45, "encoder": 0.45, "border": 0.10}
"""Weight of each kind of features; those that are used are brought to a sum of 1."""
FEWEST_SPOTS: Final = 20
"""Spots of a section below which features are standardized by the training spots' statistics."""
_MOST_SD: Final = 4.0
_CONSTANT: Final = 1e-5


@dataclass(frozen=True)
class BlockLayout:
    """Which columns of the features make a block, and how much each block weighs.

    Attributes
    ----------
    sizes
        Number of features of each block.
    weights
        Weights of the blocks, which sum to 1; the widths of a kind share its weight.
    """

    sizes: tuple[int, ...]
    weights: tuple[float, ...]

    def slices(self) -> list[slice]:
        """Return the columns of each block."""
        ends = np.cumsum(self.sizes).tolist()
        return [slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]

    def divisors(self) -> np.ndarray:
        """Return the root of the number of features of each feature's block, (n_features,)."""
        return np.repeat(np.sqrt(self.sizes), self.sizes)


@dataclass(frozen=True)
class SectionFeatures:
    """What is known of a section's spots, before it is standardized.

    Attributes
    ----------
    values
        (n_spots, n_features) float32, block after block.
    fingerprint
        (n_spots,) uint64.
    kinds
        The kind of each block, of `KINDS`.
    """

    values: np.ndarray
    layout: BlockLayout
    fingerprint: np.ndarray
    kinds: tuple[str, ...]

    def of_look(self) -> list[np.ndarray]:
        """Return the features of each kind, (n_spots, n); the distance to the border only if there is no other kind."""
        columns = dict.fromkeys(self.kinds)
        if len(columns) > 1:
            columns.pop("border", None)
        blocks = list(zip(self.kinds, self.layout.slices(), strict=True))
        return [np.concatenate([self.values[:, at] for kind, at in blocks if kind == one], axis=1) for one in columns]


def section_features(
    section: SectionInput,
    kinds: Sequence[str],
    *,
    encoder: Encoder | None,
    context: Sequence[float],
    texture_context: Sequence[float],
) -> SectionFeatures:
    """Return the features of all spots of a section.

    Parameters
    ----------
    kinds
        Kinds of features, of `KINDS`.
    encoder
        For "encoder".
    context
        Widths of the section's patches, relative to the model's.
    texture_context
        Widths over which texture is measured, likewise.
    """
    known = f"blocks-{kinds}-{texture_context}-{'' if encoder is None else encoder.digest()}"
    features: SectionFeatures = section.measured(
        known, lambda: _section_features(section, kinds, encoder, context, texture_context)
    )
    return features


def _section_features(
    section: SectionInput,
    kinds: Sequence[str],
    encoder: Encoder | None,
    context: Sequence[float],
    texture_context: Sequence[float],
) -> SectionFeatures:
    found: dict[str, list[np.ndarray]] = {}
    if "encoder" in kinds:
        assert encoder is not None  # the model was made with one
        found["encoder"] = np.split(extract(section, encoder).values, encoder.n_widths(len(context)), axis=1)
    fingerprint = section.fingerprint()
    if "texture" in kinds:
        source = section.patches[0]
        patch_px = source.extent * source.level.downsample / context[0]
        widths = [patch_px * width for width in texture_context]
        found["texture"] = list(window_texture(section, widths))
    if "border" in kinds:
        distance = slide_facts(section).border_px * UM_PER_PX
        found["border"] = [np.column_stack([np.log1p(distance), np.sqrt(distance)]).astype(np.float32)]
    blocks = [block for kind in kinds for block in found[kind]]
    total = sum(SHARES[kind] for kind in kinds)
    weights = [SHARES[kind] / total / len(found[kind]) for kind in kinds for _ in found[kind]]
    layout = BlockLayout(tuple(block.shape[1] for block in blocks), tuple(weights))
    names = tuple(kind for kind in kinds for _ in found[kind])
    return SectionFeatures(np.concatenate(blocks, axis=1), layout, fingerprint, names)


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of features.

    Attributes
    ----------
    mean, sd
        (n_features,) float32. A feature that is all but constant has an infinite standard deviation: it is 0 when
        standardized.
    """

    mean: np.ndarray
    sd: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> Standard:
        """Return those of (n_spots, n_features)."""
        mean, sd = values.mean(axis=0, dtype=np.float64), values.std(axis=0, dtype=np.float64)
        sd[sd <= _CONSTANT * np.maximum(np.abs(mean), _CONSTANT)] = np.inf
        return cls(mean.astype(np.float32), sd.astype(np.float32))

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return both as tensors, (n_features,), that a model can keep: an infinite standard deviation is 0 there."""
        return torch.from_numpy(self.mean), torch.from_numpy(np.where(np.isfinite(self.sd), self.sd, np.float32(0)))

    @classmethod
    def from_tensors(cls, mean: Tensor, sd: Tensor) -> Standard:
        """Return the statistics that `tensors` returned, (n_features,) each."""
        values = sd.numpy()
        return cls(mean.numpy(), np.where(values == 0, np.float32(np.inf), values))

    def __call__(self, values: np.ndarray, layout: BlockLayout) -> np.ndarray:
        """Return features as standard deviations from the mean, clipped at 4, divided by the root of the block's size.

        The squared distance of two spots in a block is then the mean over its features.
        """
        scaled = np.clip((values - self.mean) / self.sd, -_MOST_SD, _MOST_SD)
        return np.asarray(scaled / layout.divisors(), dtype=np.float32)


def standardize(features: SectionFeatures, usual: Standard | None = None) -> np.ndarray:
    """Return a section's features, each standardized within the section, (n_spots, n_features) float32.

    Parameters
    ----------
    usual
        Statistics of the training spots, for sections of fewer than `FEWEST_SPOTS`.
    """
    few = len(features.values) < FEWEST_SPOTS and usual is not None
    standard = usual if few and usual is not None else Standard.of(features.values)
    return standard(features.values, features.layout)


def check_kinds(features: Sequence[str]) -> None:
    """Raise ValueError unless these are some of `KINDS`."""
    if isinstance(features, str) or not features:
        msg = f"`features` is {features!r}; expected some of {', '.join(KINDS)}, such as ('texture',)."
        raise ValueError(msg)
    for kind in features:
        check_choice(kind, KINDS, name="features")


def used_kinds(kinds: Sequence[str], encoder: Encoder | None) -> tuple[str, ...]:
    """Return the kinds that are computed: without an encoder, or with texture in its place, "encoder" is left out."""
    replaced = encoder is None or encoder.name == TEXTURE
    wanted = [kind for kind in kinds if kind != "encoder" or not replaced]
    if replaced and "encoder" in kinds and "texture" not in wanted:
        wanted.insert(0, "texture")
    return tuple(wanted)
