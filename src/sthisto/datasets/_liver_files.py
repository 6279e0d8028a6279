"""The files of the four liver sections: where they lie, under GEO's names or BLEEP's, and how they are fetched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from sthisto._utils.logging import logger
from sthisto.datasets._download import fetch_unpacked

NUMBER: Final = {"A1": 1, "B1": 2, "C1": 3, "D1": 4}
"""BLEEP's number of each section."""
LAYOUT: Final = (
    "either GEO's files, in folders or not: GSM7697868_C73A1_{matrix.mtx, barcodes.tsv, features.tsv, "
    "tissue_positions_list.csv}.gz and GSM7697868_GEX_C73_A1_Merged.tiff (unpacked), GSM7697868 to 71 being A1 to D1; "
    "or those of BLEEP's repository: data/filtered_expression_matrices/1/{matrix.mtx, barcodes.tsv, features.tsv}, "
    "data/tissue_pos_matrices/tissue_positions_list_1.csv and, anywhere below, GEX_C73_A1_Merged.tif, 1 to 4 being A1 "
    "to D1"
)
_IN_BLEEP: Final = {
    "matrix.mtx": "filtered_expression_matrices/{}/matrix.mtx",
    "barcodes.tsv": "filtered_expression_matrices/{}/barcodes.tsv",
    "features.tsv": "filtered_expression_matrices/{}/features.tsv",
    "tissue_positions_list.csv": "tissue_pos_matrices/tissue_positions_list_{}.csv",
}
_GEO: Final = "https://ftp.ncbi.nlm.nih.gov/geo/samples/GSM7697nnn"
_FIRST_SAMPLE: Final = 7697868


def sections_in(root: Path) -> list[str]:
    """Names of the sections whose counts are below a folder."""
    return [section for section in NUMBER if next(_candidates(root, section, "matrix.mtx"), None)]


def find_file(root: Path, section: str, name: str) -> Path:
    """Return a section's "matrix.mtx", "barcodes.tsv", "features.tsv" or "tissue_positions_list.csv", or that ``.gz``.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    for path in _candidates(root, section, name):
        return path
    msg = f"Section {section} has no {name} in {root}. Expected are {LAYOUT}."
    raise FileNotFoundError(msg)


def find_image(root: Path, section: str) -> Path:
    """Return a section's image.

    Raises
    ------
    FileNotFoundError
        There is none, or more than one.
    """
    files = sorted(root.rglob(f"*GEX_C73_{section}_Merged.*"))
    found = [path for path in files if path.suffix.lower() in {".tif", ".tiff"}]
    if len(found) == 1:
        return found[0]
    packed = next((path for path in files if path.suffix == ".gz"), None)
    how = f"Unpack {packed}" if packed and not found else f"GEO has it at {_url(section, _image_name(section))}.gz"
    msg = f"Section {section} needs one image *GEX_C73_{section}_Merged.tif below {root}, found {len(found)}. {how}."
    raise FileNotFoundError(msg)


def download(root: Path, sections: Iterable[str]) -> None:
    """Fetch the sections' files from GEO, under GEO's names, the images unpacked; what is there is kept.

    Raises
    ------
    ValueError
        A file arrived damaged.
    OSError
        The server can't be reached or refuses.
    """
    for section in sections:
        image = root / _image_name(section)
        if not image.exists():
            logger.info("Section %s: its image of 2.6 GB is fetched into %s.", section, root)
        for name in _IN_BLEEP:
            path = root / f"{_sample(section)}_C73{section}_{name}"
            fetch_unpacked(f"{_url(section, path.name)}.gz", path)
        fetch_unpacked(f"{_url(section, image.name)}.gz", image)


def _candidates(root: Path, section: str, name: str) -> Iterator[Path]:
    in_bleep = _IN_BLEEP[name].format(NUMBER[section])
    for ending in ("", ".gz"):
        yield from (path for folder in (root / "data", root) if (path := folder / f"{in_bleep}{ending}").is_file())
        yield from sorted(root.rglob(f"{_sample(section)}_*{name}{ending}"))


def _sample(section: str) -> str:
    return f"GSM{_FIRST_SAMPLE + NUMBER[section] - 1}"


def _image_name(section: str) -> str:
    return f"{_sample(section)}_GEX_C73_{section}_Merged.tiff"


def _url(section: str, name: str) -> str:
    return f"{_GEO}/{_sample(section)}/suppl/{name}"
