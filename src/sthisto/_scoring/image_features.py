"""Color and texture all over the tissue of a section, once, to be looked up wherever its spots may lie."""

from __future__ import annotations

from typing import Final

import numpy as np

from sthisto._images.patches import PatchSource
from sthisto._images.pitch import median_pitch
from sthisto._images.tissue import tissue_share
from sthisto._scoring.alignment import FeatureMap
from sthisto._sdata.sections import Section
from sthisto.models.data import SectionInput
from sthisto.models.encoders.texture_windows import window_texture

_WIDTH: Final = 110.0
"""Width in µm of the windows that features are measured in, or 0.55 pitches where the µm per px are unknown."""
_STEPS: Final = 4
"""Points of the lattice for each pitch."""
_NARROWEST_UM: Final = 50.0
_LEAST_TISSUE: Final = 0.1
_PATCH_PX: Final = 24


def pitch_of(section: Section) -> float:
    """Return the distance of neighboring spots in px, of dense units 50 µm."""
    pitch = median_pitch(section.centers)
    return max(pitch, _NARROWEST_UM / section.um_per_px) if section.um_per_px else pitch


def feature_map(section: Section) -> FeatureMap | None:
    """Return color and texture of a section's image on a lattice over its tissue; None where there is no tissue."""
    pitch = pitch_of(section)
    step = pitch / _STEPS
    image = section.image
    x, y = (np.arange(step / 2, size, step) for size in (image.width, image.height))
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    tissue = tissue_share(image, points, pitch) > _LEAST_TISSUE
    if not tissue.any():
        return None
    width = _WIDTH / section.um_per_px if section.um_per_px else 0.55 * pitch
    level = image.level_for(width / _PATCH_PX)
    located = level.locate(points[tissue])
    patches = PatchSource(level, located, extent=width / level.downsample, size=_PATCH_PX)
    inputs = SectionInput(section.name, (patches,), points[tissue], image=image, um_per_px=section.um_per_px)
    measured = np.concatenate(list(window_texture(inputs, [width])), axis=1)
    scaled = (measured - measured.mean(axis=0)) / np.maximum(measured.std(axis=0), 1e-6)
    values = np.full((len(points), measured.shape[1]), np.nan, dtype=np.float32)
    values[tissue] = scaled
    return FeatureMap(values.reshape(len(y), len(x), -1), np.array([step / 2, step / 2]), step)
