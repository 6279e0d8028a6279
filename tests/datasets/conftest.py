"""Tiny files in the true format of the her2st repository, and the way from elements to one frame."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from spatialdata.transformations import get_transformation


@pytest.fixture(scope="session")
def matrix():
    """Affine matrix of an element, its own frame to a coordinate system."""

    def to_system(element, system):
        return get_transformation(element, system).to_affine_matrix(("x", "y"), ("x", "y"))

    return to_system


@dataclass
class Her2stSection:
    """What a section's files say; the defaults are a plain one of 3 x 4 spots, 20 px apart."""

    name: str = "B1"
    genes: tuple[str, ...] = ("EPCAM", "FN1", "SCD")
    spots: tuple[tuple[int, int], ...] = tuple((x, y) for x in (5, 6, 7) for y in (10, 11, 12, 13))
    counted: tuple[tuple[int, int], ...] | None = None  # None: all, in reverse order
    labels: dict[tuple[int, int], str] = field(default_factory=dict)
    suffix: str = "jpg"
    pitch_px: float = 20.0

    def center(self, x: int, y: int) -> tuple[float, float]:
        return (x - 4) * self.pitch_px + 3.25, (y - 9) * self.pitch_px + 1.5

    def count(self, x: int, y: int) -> list[int]:
        return [x * 1000 + y * 10 + k for k in range(len(self.genes))]

    def write(self, root):
        folders = {k: root / "data" / k for k in ("ST-cnts", "ST-spotfiles", "ST-pat/lbl")}
        pictures = root / "data" / "ST-imgs" / self.name[0] / self.name
        for folder in (*folders.values(), pictures):
            folder.mkdir(parents=True, exist_ok=True)
        counted = self.spots[::-1] if self.counted is None else self.counted
        lines = ["\t" + "\t".join(self.genes)]
        lines += ["\t".join([f"{x}x{y}", *map(str, self.count(x, y))]) for x, y in counted]
        with gzip.open(folders["ST-cnts"] / f"{self.name}.tsv.gz", "wt") as file:
            file.write("\n".join(lines) + "\n")
        rows = [
            (x + 0.08, y - 0.06, x + 0.003, y - 0.002, *self.center(x + 0.003, y - 0.002), 1) for x, y in self.spots
        ]
        columns = ["x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected"]
        spots = pd.DataFrame(rows, columns=columns)
        spots.to_csv(folders["ST-spotfiles"] / f"{self.name}_selection.tsv", sep="\t", index=False)
        if self.labels:
            labels = [(f"{x}-{y}", x + 0.021, y - 0.019, 1.0, 2.0, label) for (x, y), label in self.labels.items()]
            table = pd.DataFrame(labels, columns=["Row.names", "x", "y", "pixel_x", "pixel_y", "label"])
            table.to_csv(folders["ST-pat/lbl"] / f"{self.name}_labeled_coordinates.tsv", sep="\t", index=False)
        pixels = np.full((120, 100, 3), (230, 150, 190), np.uint8)
        Image.fromarray(pixels).save(pictures / f"4711_HE_{self.name}.{self.suffix}")
        return root


@pytest.fixture
def make_section():
    return Her2stSection
