"""Sections whose genes follow from the color of the tissue, so that every method has something to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp
import torch
from builders import Region, make_sdata, similarity
from spatialdata import SpatialData
from torch import nn

from sthisto._images.patches import PatchSource, PatchSpec
from sthisto._images.pyramid import Level
from sthisto.models import Encoder, SectionInput, TrainingSection

SPACING, MARGIN, PATCH = 20, 14, 16
GENES = [f"gene{i}" for i in range(12)]
PATCHES = PatchSpec(PATCH)


class Pool(nn.Module):
    """An image encoder of 24 features: mean and spread of the channels in 2 x 2 cells."""

    def forward(self, pixels):
        cells = nn.functional.unfold(pixels, pixels.shape[-1] // 2, stride=pixels.shape[-1] // 2)
        cells = cells.view(len(pixels), 3, -1, cells.shape[-1])
        return torch.cat([cells.mean(2).flatten(1), cells.std(2).flatten(1)], dim=1)


def encoder() -> Encoder:
    return Encoder(Pool(), name="module:Pool")


def draw(side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an image (3, h, w), centers (side², 2), and the two properties (side², 2) that color every spot."""
    step = np.arange(side) * SPACING + MARGIN
    centers = np.stack(np.meshgrid(step, step), -1).reshape(-1, 2).astype(float)
    size = side * SPACING + 2 * MARGIN - SPACING
    properties = rng.random((len(centers), 2))
    image = np.full((size, size, 3), 240.0)
    for (x, y), (first, second) in zip(centers.astype(int), properties, strict=True):
        half = SPACING // 2
        image[y - half : y + half, x - half : x + half] = [230 - 150 * first, 220 - 120 * second, 210]
    image += rng.normal(0, 6, image.shape)
    return np.moveaxis(image.clip(0, 255).astype(np.uint8), -1, 0), centers, properties


def draw_counts(properties: np.ndarray, rng: np.random.Generator, n_genes: int = 12) -> np.ndarray:
    """Counts (n_spots, n_genes): a third of the genes follows each property, the others neither."""
    third = n_genes // 3
    rate = np.full((len(properties), n_genes), 30.0)
    rate[:, :third] *= 0.3 + 3 * properties[:, :1]
    rate[:, third : 2 * third] *= 0.3 + 3 * properties[:, 1:]
    return rng.poisson(rate * rng.uniform(0.7, 1.3, (len(rate), 1)))


def make_tissue(
    names: Sequence[str] = ("A", "B"), *, side: int = 7, seed: int = 0, patients: Mapping[str, str] | None = None
) -> SpatialData:
    """Return one SpatialData with a region for each name, rows of its table in random order."""
    rng = np.random.default_rng(seed)
    drawn = {name: draw(side, rng) for name in names}
    sdata = make_sdata(
        *(
            Region(
                name=name,
                image_key=f"{name}_image",
                system=f"{name}_slide",
                image=image,
                centers=centers,
                height=image.shape[1],
                width=image.shape[2],
                image_to_system=similarity(angle=90 * i, scale=0.5),
            )
            for i, (name, (image, centers, _)) in enumerate(drawn.items())
        ),
        n_genes=len(GENES),
        seed=seed,
    )
    table = sdata["counts"]
    counts = {name: draw_counts(properties, rng) for name, (_, _, properties) in drawn.items()}
    rows = zip(table.obs["region"], table.obs["instance"] - 100, strict=True)
    table.X = sp.csr_matrix(np.array([counts[region][spot] for region, spot in rows], dtype=np.float32))
    table.obs["patient"] = [(patients or {}).get(str(region), str(region)) for region in table.obs["region"]]
    return sdata


def mark_split(sdata: SpatialData, roles: Mapping[str, str]) -> None:
    """Give each region one role."""
    table = sdata["counts"]
    table.obs["sthisto_split"] = [roles[str(region)] for region in table.obs["region"]]


def rows_of(sdata: SpatialData, region: str) -> np.ndarray:
    return np.flatnonzero(sdata["counts"].obs["region"] == region)


def make_section(name: str = "A", *, side: int = 7, seed: int = 0, validation: int = 0) -> TrainingSection:
    """Return a section as arrays; its last spots choose the epoch."""
    rng = np.random.default_rng(seed)
    image, centers, properties = draw(side, rng)
    expression = np.log1p(draw_counts(properties, rng)).astype(np.float32)
    spots = np.arange(len(centers))
    source = PatchSource(Level(image, np.eye(3)), centers, extent=PATCH, size=PATCH)
    n_train = len(spots) - validation
    return TrainingSection(SectionInput(name, (source,), centers), expression, spots[:n_train], spots[n_train:])
