"""The files of one section in the layout of the her2st repository."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sthisto._images.content import OF_CONTENT
from sthisto._utils.logging import logger

if TYPE_CHECKING:
    from dask.array import Array
    from PIL.ImageFile import ImageFile

_PITCH_UM = 200.0
_DECODING = Lock()
_COLUMNS = ("x", "y", "new_x", "new_y", "pixel_x", "pixel_y")


@dataclass(frozen=True)
class SectionFiles:
    """Where one section's files are; nothing is read before it is asked for."""

    section: str
    counts: Path
    spots: Path
    image: Path
    labels: Path | None

    def read(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the spots and their counts, in the same order.

        Returns
        -------
        Spots, indexed by "XxY", with array_x, array_y, pixel_x and pixel_y (center in px of the image), selected and
        label (NaN where there is none); counts (n_spots, n_genes).
        """
        spots, counts = self._read_spots(), _read_counts(self.counts)
        shared = spots.index[spots.index.isin(counts.index)]
        _say_left_out(self.section, len(spots) - len(shared), "no counts")
        _say_left_out(self.section, len(counts) - len(shared), "no place in the spot file")
        if shared.empty:
            msg = f"{self.counts.name} and {self.spots.name} have no spot in common; spots are named like '10x13'."
            raise ValueError(msg)
        return spots.loc[shared], counts.loc[shared]

    def um_per_px(self) -> float:
        """µm per px of the image: how many pixels one step of the array takes, fitted over all spots."""
        spots = self._read_spots()
        array = np.column_stack([spots["new_x"], spots["new_y"], np.ones(len(spots))])
        pixels = spots[["pixel_x", "pixel_y"]].to_numpy()
        kept = np.ones(len(spots), bool)
        for _ in range(5):
            steps = np.linalg.lstsq(array[kept], pixels[kept], rcond=None)[0]
            error = np.linalg.norm(pixels - array @ steps, axis=1)
            kept = error <= 4 * np.median(error) + 1e-3 * np.abs(steps[:2]).max()
        return float(_PITCH_UM / np.sqrt(abs(np.linalg.det(steps[:2]))))

    def lazy_image(self) -> Array:
        """Return the image as (3, height, width) uint8, decoded when it is computed."""
        import dask.array as da
        from dask import delayed

        with _open_image(self.image) as image:
            width, height = image.size
        digest = blake2b(self.image.read_bytes(), digest_size=16).hexdigest()
        pixels = delayed(_decode)(self.image, digest, dask_key_name=f"{OF_CONTENT}{digest}")
        return da.from_delayed(pixels, (3, height, width), np.uint8).rechunk((3, 2048, 2048))

    def _read_spots(self) -> pd.DataFrame:
        spots = pd.read_csv(self.spots, sep="\t")
        if missing := [column for column in _COLUMNS if column not in spots]:
            msg = f"{self.spots} lacks the columns {missing}; it has {list(spots)}."
            raise ValueError(msg)
        spots["array_x"], spots["array_y"] = (spots[axis].round().astype(int) for axis in ("x", "y"))
        spots.index = pd.Index(_names(spots["array_x"], spots["array_y"]))
        if "selected" not in spots:
            spots["selected"] = 1
        if spots.index.has_duplicates:
            msg = f"{self.spots} names the spot {spots.index[spots.index.duplicated()][0]!r} more than once."
            raise ValueError(msg)
        place = pd.Index(_names(spots["new_x"], spots["new_y"]))
        labels = {} if self.labels is None else _read_labels(self.labels)
        spots["label"] = pd.Series([labels.get(name) for name in place], index=spots.index, dtype=object)
        return spots


def find_sections(folder: Path) -> dict[str, SectionFiles]:
    """Section -> its files, for each section whose counts are in `folder` (the repository's ``data``).

    Raises
    ------
    FileNotFoundError
        A section has counts, but no spot file or no image.
    """
    sections = {}
    for counts in sorted((folder / "ST-cnts").glob("*.tsv*")):
        section = counts.name.split(".")[0]
        spots = folder / "ST-spotfiles" / f"{section}_selection.tsv"
        labels = folder / "ST-pat" / "lbl" / f"{section}_labeled_coordinates.tsv"
        pictures = folder / "ST-imgs" / section[0] / section
        images = sorted(p for p in pictures.glob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
        if not spots.exists() or len(images) != 1:
            found = f"{spots.name} is {'there' if spots.exists() else 'missing'}, {len(images)} images in {pictures}"
            msg = f"Section {section} needs its spot file and one jpg or png: {found}."
            raise FileNotFoundError(msg)
        sections[section] = SectionFiles(section, counts, spots, images[0], labels if labels.exists() else None)
    return sections


def _read_counts(path: Path) -> pd.DataFrame:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        genes = file.readline().rstrip("\r\n").split("\t")[1:]
        counts = pd.read_csv(file, sep="\t", header=None, index_col=0)
    counts.columns = pd.Index(genes)
    counts.index = counts.index.astype(str)
    if counts.columns.has_duplicates:
        counts = counts.T.groupby(level=0, sort=False).sum().T
    return counts


def _read_labels(path: Path) -> dict[str, str]:
    labels = pd.read_csv(path, sep="\t").dropna(subset=["x", "y", "label"])
    return dict(zip(_names(labels["x"], labels["y"]), labels["label"].str.strip(), strict=True))


def _names(x: pd.Series, y: pd.Series) -> list[str]:
    return [f"{i}x{j}" for i, j in zip(x.round().astype(int), y.round().astype(int), strict=True)]


def _open_image(path: Path) -> ImageFile:
    """Open without `PIL.Image.open`, whose limit against decompression bombs these images exceed."""
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile

    return (PngImageFile if path.suffix.lower() == ".png" else JpegImageFile)(path)


def _decode(path: Path, digest: str) -> np.ndarray:
    """Return the pixels of a file, (3, height, width) uint8; the last image is kept, as its chunks come one by one."""
    with _DECODING:
        return _decode_once(path, digest)


@lru_cache(maxsize=1)
def _decode_once(path: Path, digest: str) -> np.ndarray:
    with _open_image(path) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def _say_left_out(section: str, n_spots: int, why: str) -> None:
    if n_spots:
        logger.info("Section %s: %d spots have %s and are left out.", section, n_spots, why)
