"""Other views of the same tissue: the eight symmetries of a patch, and stain of another strength."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from skimage.color import hed_from_rgb, rgb_from_hed
from torch import Tensor

from sthisto._images.patches import PatchSource, read_once
from sthisto._images.pyramid import Level
from sthisto._utils.validate import check_choice
from sthisto.models.data import SectionInput

N_SYMMETRIES = 8
_DARKEST = 1 / 255


def transform(patches: np.ndarray, symmetry: int) -> np.ndarray:
    """Return patches (n, size, size, 3) turned by `symmetry` % 4 quarters and, from 4 on, mirrored."""
    check_choice(symmetry, range(N_SYMMETRIES), name="symmetry")
    turned = np.rot90(patches, symmetry % 4, axes=(1, 2))
    return np.ascontiguousarray(turned[:, :, ::-1] if symmetry >= 4 else turned)


class SymmetricSource(PatchSource):
    """The patches of another source under one of the eight symmetries of the square.

    Parameters
    ----------
    source
        Where patches come from.
    symmetry
        0 is the patch itself.
    """

    def __init__(self, source: PatchSource, symmetry: int) -> None:
        self.__dict__.update(source.__dict__)
        self._source = source
        self._symmetry = symmetry

    def batches(self, batch_size: int | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield every patch once, as `PatchSource.batches`."""
        for index, patches in self._source.batches(batch_size):
            yield index, transform(patches, self._symmetry)

    def read(self) -> np.ndarray:
        """Return all patches in the order of the centers: (n, size, size, 3), uint8 RGB."""
        return transform(self._source.read(), self._symmetry)

    def on(self, level: Level) -> SymmetricSource:
        """Return the source of the same patches from another form of the same level."""
        return SymmetricSource(self._source.on(level), self._symmetry)

    def subset(self, index: np.ndarray) -> SymmetricSource:
        """Return the source of the patches at `index`, (n,), in that order."""
        return SymmetricSource(self._source.subset(index), self._symmetry)


def symmetries(section: SectionInput) -> Iterator[SectionInput]:
    """Yield the section as it looks under each of the eight symmetries, the first as it is; its image is read once."""
    sources = read_once(section.patches, passes=N_SYMMETRIES)
    for symmetry in range(N_SYMMETRIES):
        patches = [SymmetricSource(source, symmetry) if symmetry else source for source in sources]
        yield replace(section, patches=patches)


def check_stain_jitter(strength: float, *, trained: bool) -> None:
    """Raise ValueError for stain jitter below zero, or where no encoder is trained under augmentation."""
    if strength < 0:
        msg = f"`stain_jitter` must not be negative, found {strength!r}."
        raise ValueError(msg)
    if strength and not trained:
        msg = "stain_jitter changes patches while the encoder is trained; it needs finetune=True and augment=True."
        raise ValueError(msg)


def augment(patches: Tensor, *, stain: float = 0.0) -> Tensor:
    """Show each patch under a symmetry of its own and, with `stain`, in a stain of another strength.

    Parameters
    ----------
    patches
        (batch, size, size, 3) uint8 RGB.
    stain
        Standard deviation of the logarithm of the factors by which hematoxylin and eosin are multiplied, and a
        tenth of it that of the optical density that is added to each. 0 leaves colors as they are.

    Returns
    -------
    (batch, size, size, 3) uint8.

    Notes
    -----
    Stains are unmixed with the vectors of Ruifrok and Johnston, as scikit-image has them; after Tellez et al., IEEE
    Transactions on Medical Imaging 2018, doi:10.1109/TMI.2018.2820199. Random numbers come from torch's own state.
    """
    symmetry = torch.randint(N_SYMMETRIES, (len(patches),))
    shown = torch.empty_like(patches)
    for number in range(N_SYMMETRIES):
        rows = torch.nonzero(symmetry == number).ravel().to(patches.device)
        turned = torch.rot90(patches[rows], number % 4, dims=(1, 2))
        shown[rows] = turned.flip(2) if number >= 4 else turned
    return jitter_stain(shown, stain) if stain else shown


def jitter_stain(patches: Tensor, strength: float) -> Tensor:
    """Multiply and shift the H and E of each patch, (batch, size, size, 3) uint8, at random; the residual stays."""
    unmix, mix = (torch.tensor(m, dtype=torch.float32, device=patches.device) for m in (hed_from_rgb, rgb_from_hed))
    density = -torch.log((patches.float() / 255).clamp_min(_DARKEST)) @ unmix  # (batch, size, size, 3): H, E, residual
    noise = torch.randn(2, len(patches), 1, 1, 2).to(patches.device)
    factor, shift = (strength * noise[0]).exp(), strength / 10 * noise[1]
    stained = torch.cat([density[..., :2] * factor + shift, density[..., 2:]], dim=-1)
    return (torch.exp(-stained @ mix) * 255).round().clamp(0, 255).to(torch.uint8)
